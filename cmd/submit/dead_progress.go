package main

// sayEvery is after how many dead letters it is said how far a command is, where
// there is no terminal for a bar.
const sayEvery = 100

// advance shows a person how far a command with many dead letters is.
type advance struct {
	app         *app
	done, total int
	bar         *bar // nil without a terminal, and for one letter
}

// advance starts to show the way through total letters.
func (a *app) advance(name string, total int) *advance {
	p := &advance{app: a, total: total}
	if total > 1 && a.terminals.err {
		p.bar = a.newBar(name, total)
	}
	return p
}

// step counts one letter.
func (p *advance) step() {
	p.done++
	switch {
	case p.bar != nil:
		p.bar.add(true) // what went wrong is said letter by letter
	case p.done%sayEvery == 0 && p.done < p.total:
		p.app.note("submit: %d of %s so far", p.done, times(p.total, "dead letter"))
	}
}

// stop ends the showing. It may be called again.
func (p *advance) stop() {
	if p.bar != nil {
		p.bar.stop()
		p.bar = nil
	}
}
