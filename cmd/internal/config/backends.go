package config

import (
	"cmp"
	"slices"
	"strings"

	"understudy/internal/backend/openai"
	"understudy/internal/backend/rules"
	"understudy/internal/breaker"
	"understudy/internal/worker"
)

// The backends with settings of their own; a preset goes by the start of the
// variables' names.
const (
	presetOpenRouter = "OPENROUTER"
	presetVLLM       = "VLLM"
	presetRules      = "RULES"
)

// defaultBaseURL is where a backend of KIND=openai with a key and no BASE_URL is.
const defaultBaseURL = "https://api.openai.com/v1"

// maxKey is the longest API key, in bytes. The longest that are in use, signed
// tokens, have a few thousand.
const maxKey = 16 << 10

// backendEntry is one backend of BACKENDS.
type backendEntry struct {
	name, prefix string
	spec         backendSpec
	fields       []field
	// off says why the backend is left out; empty when it is in.
	off string
}

// readBackends reads the variables of the backends called names.
func readBackends(r *reader, names []string, breakers *breakerSpec) []*backendEntry {
	list := make([]*backendEntry, len(names))
	for i, name := range names {
		b := &backendEntry{name: name, prefix: envPrefix(name)}
		b.fields = r.read(b.prefix, "backend "+name, &b.spec)
		b.preset()
		b.spec.BreakerFailures.use(breakers.Failures.text)
		b.spec.BreakerCooldown.use(breakers.Cooldown.text)
		b.readKey(r)
		switch b.spec.Kind.value {
		case worker.KindRules:
			b.checkRules(r)
		case worker.KindAzure:
			b.checkAzure(r)
		case worker.KindOpenAI:
			b.checkOpenAI()
		}
		if b.off == "" {
			b.warn(r)
		}
		list[i] = b
	}
	return list
}

// preset fills in what goes without saying for a backend of this name.
func (b *backendEntry) preset() {
	s := &b.spec
	s.Timeout.use("30")
	switch b.prefix {
	case presetOpenRouter:
		s.BaseURL.use("https://openrouter.ai/api/v1")
		s.Timeout.use("5.0")
	case presetVLLM:
		s.Timeout.use("10.0")
	case presetRules:
		s.Kind.use(worker.KindRules)
	}
}

// readKey reads API_KEY_FILE.
func (b *backendEntry) readKey(r *reader) {
	key, file := &b.spec.APIKey, &b.spec.APIKeyFile
	if !file.given || file.err != nil {
		return
	}
	if key.given {
		r.report.problem(file.name, "unset one of them", "is set, and so is %s", key.name)
		return
	}
	data, err := readFile(expandHome(file.value), maxKey)
	if err != nil {
		r.report.problem(file.name, "name a readable file that holds the key alone", "%s %s", quoted(file.value), err)
		return
	}
	_ = key.Set(string(data))
	switch flaws := key.flaws(); {
	case len(flaws) > 0:
		r.report.problem(file.name, "let the file hold the key alone", "the file %s", flaws[0].wrong)
	case key.value == "":
		r.report.problem(file.name, "write the key into it", "the file is empty")
	}
}

// broken tells that what is wrong with the key or the base URL is reported
// already, so that nothing more is to be said about their absence.
func (b *backendEntry) broken() bool {
	s := &b.spec
	return s.BaseURL.err != nil || s.APIKey.err != nil || s.APIKeyFile.given && s.APIKey.value == ""
}

// checkOpenAI turns the backend off that has nothing to call.
func (b *backendEntry) checkOpenAI() {
	s := &b.spec
	if b.broken() {
		return
	}
	switch {
	case b.prefix == presetOpenRouter && s.APIKey.value == "":
		b.off = s.APIKey.name + " is not set"
	case b.prefix == presetVLLM && s.BaseURL.value == "":
		b.off = s.BaseURL.name + " is not set"
	case s.APIKey.value == "" && s.BaseURL.value == "":
		b.off = "neither " + s.APIKey.name + " nor " + s.BaseURL.name + " is set"
	case s.BaseURL.value == "":
		s.BaseURL.use(defaultBaseURL)
	}
}

func (b *backendEntry) checkAzure(r *reader) {
	s := &b.spec
	const why = "is not set, and KIND=azure needs it"
	if s.BaseURL.text == "" {
		r.report.problem(s.BaseURL.name, "set it to the resource, such as https://acme.openai.azure.com", why)
	}
	if s.APIKey.value == "" && !b.broken() {
		r.report.problem(s.APIKey.name, "set it to a key of the resource", why)
	}
	if s.APIVersion.text == "" {
		r.report.problem(s.APIVersion.name, "set it, for example to "+openai.DefaultAPIVersion, why)
	}
}

func (b *backendEntry) checkRules(r *reader) {
	s := &b.spec
	if s.Rules.value != "" {
		s.Rules.value = expandHome(s.Rules.value)
		if _, err := rules.Load(s.Rules.value); err != nil {
			r.report.problem(s.Rules.name, "", "%s", oneLine(err))
		}
	}
	for _, f := range b.fields {
		if f.isGiven() && f.label() != s.Rules.name && f.label() != s.Kind.name {
			r.report.warn(f.name, "unset it", "has no effect with KIND=rules")
		}
	}
}

// warn tells what is set and does nothing.
func (b *backendEntry) warn(r *reader) {
	s := &b.spec
	if s.Kind.value == worker.KindRules {
		return
	}
	if s.Rules.given {
		r.report.warn(s.Rules.name, "set "+s.Kind.name+"=rules, or unset it", "has no effect without KIND=rules")
	}
}

// config is the backend as the worker wants it. jobs is how many jobs run at
// once, and so how many calls there may be of a backend without a limit.
func (b *backendEntry) config(jobs int, breakers *breakerSpec) worker.Backend {
	s := &b.spec
	w := worker.Backend{Name: b.name, Kind: s.Kind.value}
	if w.Kind == worker.KindRules {
		w.RulesFile = s.Rules.value
		return w
	}
	w.Concurrency, w.Retries = s.Concurrency.value, s.Retries.value
	w.RPM, w.TPM = int64(s.RPM.value), int64(s.TPM.value)
	w.OpenAI = openai.Config{
		BaseURL: s.BaseURL.value, APIKey: s.APIKey.value, APIVersion: s.APIVersion.value,
		Model: s.Model.value, Models: s.Models.value,
		Timeout: s.Timeout.value, FirstTokenTimeout: s.FirstTokenTimeout.value, AdaptiveTimeout: s.AdaptiveTimeout.value,
		Concurrency: cmp.Or(s.Concurrency.value, jobs),
		PriceInput:  s.PriceInput.value, PriceOutput: s.PriceOutput.value, PriceHour: s.PriceHour.value,
		Headers: s.Headers.value, Set: s.Set.value, Drop: s.Drop.value,
	}
	w.Breaker = breaker.Config{
		Failures: s.BreakerFailures.value, Cooldown: s.BreakerCooldown.value,
		MaxCooldown: breakers.MaxCooldown.value, Probes: breakers.Probes.value,
	}
	return w
}

// on returns the names of the backends that are not off.
func on(backends []*backendEntry) []string {
	var names []string
	for _, b := range backends {
		if b.off == "" {
			names = append(names, b.name)
		}
	}
	return names
}

// checkAny reports when no backend is left, and those that were named in
// BACKENDS by hand and are off.
func checkAny(r *reader, lists *listsSpec, backends []*backendEntry) {
	name := lists.Backends.name
	if len(on(backends)) == 0 && lists.Backends.err == nil {
		r.report.problem(name, "set OPENROUTER_API_KEY, or VLLM_BASE_URL, or name backends in BACKENDS", "no backend is configured")
	}
	if !lists.Backends.given {
		return
	}
	for _, b := range backends {
		if b.off != "" {
			r.report.warn(name, "", "%s is off: %s", b.name, b.off)
		}
	}
}

// pick returns those of names that are backends in use. It reports the unknown
// and warns of those that are off; where is the variable that names them.
func pick(r *reader, where string, names []string, backends []*backendEntry) []string {
	var picked []string
	for _, name := range names {
		i := slices.IndexFunc(backends, func(b *backendEntry) bool { return b.name == name })
		switch {
		case len(backends) == 0: // what is wrong with BACKENDS is said already
		case i < 0:
			r.report.problem(where, "use some of "+strings.Join(allNames(backends), ", ")+", or add it to BACKENDS", "%s is not a backend", quoted(name))
		case backends[i].off != "":
			r.report.warn(where, "", "%s is left out, it is off: %s", name, backends[i].off)
		default:
			picked = append(picked, name)
		}
	}
	return picked
}

func allNames(backends []*backendEntry) []string {
	names := make([]string, len(backends))
	for i, b := range backends {
		names[i] = b.name
	}
	return names
}
