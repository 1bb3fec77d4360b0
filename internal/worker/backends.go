package worker

import (
	"errors"
	"fmt"

	"understudy/internal/backend"
	"understudy/internal/backend/openai"
	"understudy/internal/backend/rules"
	"understudy/internal/breaker"
	"understudy/internal/limit"
)

// backends are the configured backends, each behind its limits and its breaker:
//
//	engine -> limiter (waits for its turn) -> breaker (admits, or refuses) -> client
type backends struct {
	names   []string
	outer   []backend.Backend
	guards  []*breaker.Guard
	clients []*openai.Client
	retries map[string]int
}

// newBackends builds the backends in order, or returns every problem joined.
func newBackends(cfgs []Backend, onChange func(breaker.Change)) (*backends, error) {
	b := &backends{retries: make(map[string]int)}
	var errs []error
	for _, cfg := range cfgs {
		if err := b.add(cfg, onChange); err != nil {
			errs = append(errs, fmt.Errorf("backend %s: %w", cfg.Name, err))
		}
	}
	return b, errors.Join(errs...)
}

func (b *backends) add(cfg Backend, onChange func(breaker.Change)) error {
	if cfg.Kind == KindRules {
		set, err := rules.Load(cfg.RulesFile)
		if err != nil {
			return err
		}
		b.names = append(b.names, cfg.Name)
		b.outer = append(b.outer, rules.New(cfg.Name, set))
		return nil
	}
	cfg.OpenAI.Name, cfg.OpenAI.Kind = cfg.Name, cfg.Kind
	client, err := openai.New(cfg.OpenAI)
	if err != nil {
		return err
	}
	guard, err := breaker.New(client, cfg.Breaker, onChange)
	if err != nil {
		client.Close()
		return err
	}
	limiter, err := limit.New(guard, limit.Config{Concurrency: cfg.Concurrency, RPM: cfg.RPM, TPM: cfg.TPM})
	if err != nil {
		client.Close()
		return err
	}
	b.names = append(b.names, cfg.Name)
	b.clients = append(b.clients, client)
	b.guards = append(b.guards, guard)
	b.outer = append(b.outer, limiter)
	b.retries[cfg.Name] = cfg.Retries
	return nil
}

// close frees the idle connections.
func (b *backends) close() {
	for _, c := range b.clients {
		c.Close()
	}
}
