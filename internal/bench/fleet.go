package main

import (
	"errors"
	"fmt"
	"time"
)

// fleet are the processes of one side, at least one.
type fleet []*process

// alive returns an error when one has ended.
func (f fleet) alive() error {
	for _, p := range f {
		if p.hasEnded() {
			return p.failure(fmt.Errorf("%s ended by itself: %w", p.name, p.err))
		}
	}
	return nil
}

// cpu is the CPU time of all, see process.cpu.
func (f fleet) cpu() time.Duration {
	var sum time.Duration
	for _, p := range f {
		sum += p.cpu()
	}
	return sum
}

// memory is the peak of resident memory of all together, at most: their peaks
// need not fall together.
func (f fleet) memory() (bytes int64, err error) {
	for _, p := range f {
		_, peak, one := memory(p.cmd.Process.Pid)
		bytes, err = bytes+peak, errors.Join(err, one)
	}
	return bytes, err
}

// stop ends all in order.
func (f fleet) stop() error {
	var errs []error
	for _, p := range f {
		errs = append(errs, p.stop())
	}
	return errors.Join(errs...)
}

// kill ends all at once.
func (f fleet) kill() {
	for _, p := range f {
		p.kill()
	}
}
