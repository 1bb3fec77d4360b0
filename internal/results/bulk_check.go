package results

import (
	"context"
	"errors"
	"fmt"
)

// silence is how many probes had no answer on a connection, by its number.
type silence struct {
	on     uint64
	probes int
}

// check looks at the streams, and asks them something where that may be. It returns
// why they cannot be asked in bulk.
func (b *bulk) check(ctx context.Context) error {
	if b.refused() {
		return errNotBulk
	}
	var err error
	for _, name := range b.streams {
		if err = b.try(ctx, name); err != nil {
			break
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.usable = err == nil
	return err
}

// refused reports whether another probe would only be refused as those before it.
func (b *bulk) refused() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.silent.on == b.connection() && b.silent.probes >= bulkProbes
}

// unheard notes that a probe on a connection had no answer.
func (b *bulk) unheard(connection uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.silent.on != connection {
		b.silent = silence{on: connection}
	}
	b.silent.probes++
}

// connection is the number of the connection, from 1.
func (b *bulk) connection() uint64 { return b.nc.Stats().Reconnects + 1 }

// try asks one stream something where that may be.
func (b *bulk) try(ctx context.Context, name string) error {
	connection := b.connection()
	stream, err := b.js.Stream(ctx, name)
	if err != nil {
		return fmt.Errorf("open stream %s: %w", name, err)
	}
	switch info := stream.CachedInfo(); {
	case !info.Config.AllowDirect:
		return fmt.Errorf("stream %s does not allow direct gets", name)
	case info.Config.Replicas > 1, len(info.Alternates) > 0, // alternates are mirrors, which answer too
		info.Cluster != nil && len(info.Cluster.Replicas) > 0: // it is being moved
		return fmt.Errorf("stream %s has more than one copy", name)
	}
	probe, cancel := context.WithTimeout(ctx, b.probeWait)
	defer cancel()
	body, err := bulkRequest([]string{name}) // is nobody's subject
	if err != nil {
		return err
	}
	msg, err := b.nc.RequestWithContext(probe, directGet+name, body)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil && b.heard.Load() != connection { // else it may be better next time
			b.unheard(connection)
		}
		return fmt.Errorf("a direct get of stream %s has no answer, maybe for want of permission: %w", name, err)
	}
	b.heard.Store(connection)
	switch {
	case msg.Header.Get("Status") != "404": // 408: a server before 2.11
		return fmt.Errorf("the server cannot answer for many subjects at once: %s %s", msg.Header.Get("Status"), msg.Header.Get("Description"))
	default:
		return nil
	}
}
