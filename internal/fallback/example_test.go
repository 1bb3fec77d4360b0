package fallback_test

import (
	"context"
	"fmt"
	"slices"

	"understudy/internal/backend"
	"understudy/internal/fallback"
	"understudy/internal/job"
)

// parrot is a backend of one's own: two methods.
type parrot struct{}

func (parrot) Name() string { return "parrot" }

func (parrot) Complete(_ context.Context, req *backend.Request) (*backend.Response, error) {
	req.Started("parrot-1") // the call leaves
	return &backend.Response{Status: 200, Body: req.Body, Model: "parrot-1"}, nil
}

// mute is another one, which fails.
type mute struct{}

func (mute) Name() string { return "mute" }

func (mute) Complete(_ context.Context, req *backend.Request) (*backend.Response, error) {
	req.Started("mute-1")
	return nil, &backend.Error{Class: backend.EmptyOutput, Backend: "mute", Message: "it said nothing"}
}

// backwards is a strategy of one's own: one method. It walks the chain from its end.
type backwards struct{}

func (backwards) Next(s *fallback.Situation) fallback.Move {
	var order []int
	for i, candidate := range slices.Backward(s.Chain) {
		if candidate.Tries == 0 {
			order = append(order, i)
		}
	}
	return fallback.Move{Order: order}
}

// printer is an observer that prints.
type printer struct{}

func (printer) Started(a job.Attempt) func() {
	fmt.Println(a.N, a.Backend, "is asked for", a.Model)
	return nil
}

func (printer) Ended(a job.Attempt) {
	fmt.Println(a.N, a.Backend, a.Outcome)
	if a.Next != nil {
		fmt.Println("  then:", *a.Next)
	}
}

// A strategy and a backend of one's own are one interface and one registration
// each.
func Example() {
	strategies := fallback.Strategies()
	strategies["backwards"] = func(*fallback.Policy) (fallback.Strategy, error) { return backwards{}, nil }

	policy := fallback.DefaultPolicy()
	policy.Strategy = "backwards"
	engine, err := fallback.New(fallback.Config{
		Backends:   []backend.Backend{parrot{}, mute{}},
		Strategies: strategies,
		Routes:     []fallback.Route{{Name: fallback.DefaultRoute, Policy: policy}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	plan, err := engine.Plan(&job.Job{ID: "job-1"})
	if err != nil {
		fmt.Println(err)
		return
	}
	out := engine.Run(context.Background(), fallback.Task{
		Plan: plan, Observer: printer{},
		Request: backend.Request{JobID: "job-1", Body: []byte(`{"messages":[]}`)},
	})
	fmt.Println(out.Backend, "answered", string(out.Response.Body))
	// Output:
	// 1 mute is asked for mute-1
	// 1 mute failed
	//   then: fallback
	// 2 parrot is asked for parrot-1
	// 2 parrot succeeded
	// parrot answered {"messages":[]}
}
