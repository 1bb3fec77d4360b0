package main

import (
	"fmt"
	"math"
	"slices"
)

// sum is the time of a whole job, by the medians of its spans.
func (w wall) sum() float64 {
	sum := 0.0
	for _, s := range w.Spans {
		sum += s.P50
	}
	return sum
}

// tables are the steps in numbers.
func (st *steps) tables() []table {
	return []table{st.cpuTable(), st.wallTable()}
}

// cpuTable is what the steps cost of CPU.
func (st *steps) cpuTable() table {
	t := table{
		title: fmt.Sprintf("CPU of the worker by step, %d slots, %s jobs", slots, thousands(st.Jobs)),
		head:  []string{"step", "us per job", "+/-", "share, %"},
	}
	sum := 0.0
	for _, c := range st.CPU {
		sum += c.Micros
	}
	for _, c := range st.CPU {
		doubt := 0.0
		if c.Samples > 0 { // of a count that is random
			doubt = c.Micros / math.Sqrt(float64(c.Samples))
		}
		t.rows = append(t.rows, []string{c.Step, figure(c.Micros), figure(doubt), figure(100 * c.Micros / max(sum, 1e-9))})
	}
	t.rows = append(t.rows, []string{"all", figure(sum), "", "100"})
	return t
}

// wallTable is how long the spans take.
func (st *steps) wallTable() table {
	t := table{title: fmt.Sprintf("Time of a job on one slot, provider %s, medians", slotDelay), head: []string{"from, to", "whose time"}}
	for _, w := range st.Walls {
		t.head = append(t.head, w.Side+", us")
	}
	for i, s := range spans() {
		row := []string{s.Name, s.At}
		for _, w := range st.Walls {
			row = append(row, figure(w.Spans[i].P50))
		}
		t.rows = append(t.rows, row)
	}
	all := []string{"all", ""}
	own := []string{"of it its own", atOwn}
	messages := []string{"messages to and from the server", ""}
	for _, w := range st.Walls {
		all = append(all, figure(w.sum()))
		sum := 0.0
		for _, s := range w.Spans {
			if s.At == atOwn {
				sum += s.P50
			}
		}
		own = append(own, figure(sum))
		messages = append(messages, figure(w.Sent)+" + "+figure(w.Got))
	}
	t.rows = append(t.rows, all, own, messages)
	return t
}

// markdown is both tables with their pictures.
func (st *steps) markdown(p pictures) (string, error) {
	cpu := bar{name: "CPU, at full load"}
	for i, c := range st.CPU {
		cpu.parts = append(cpu.parts, piece{c.Step, c.Micros, i})
	}
	var walls []bar
	for _, w := range st.Walls {
		b := bar{name: w.Side}
		for i, s := range w.Spans {
			if s.At != atProvider { // it would hide the rest
				b.parts = append(b.parts, piece{s.Name + " (" + s.At + ")", s.P50, i})
			}
		}
		walls = append(walls, b)
	}
	slices.Reverse(walls) // the worker first
	one, err := p.put("cpu", "What the steps of a job cost of CPU", bars("CPU of one job by step", []bar{cpu}))
	if err != nil {
		return "", err
	}
	two, err := p.put("time", "How long the steps of a job take", bars("Time of one job on one slot, without the provider's", walls))
	if err != nil {
		return "", err
	}
	return st.cpuTable().markdown() + "\n" + one + "\n" + st.wallTable().markdown() + "\n" + two, nil
}
