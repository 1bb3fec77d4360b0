package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"understudy/internal/llmtest"
)

// defaultProvider is the provider that is served without a name in its path.
const defaultProvider = "default"

// script is a script file: for every provider its rules. A call gets the reply
// of the first rule that applies to it, or a correct answer if none does.
//
//	{"openrouter": [
//	   {"for": "4s", "hang": true},
//	   {"status": 429, "retry_after": "1", "p": 0.2},
//	   {"delay": "200ms", "delay_jitter": "100ms"}],
//	 "vllm": []}
//
// The time of a script starts with the first call of any provider.
type script map[string][]*rule

// rule is one line of a script: when it applies, and what it replies.
type rule struct {
	// Model: only calls for that model.
	Model string `json:"model"`
	// From and For: only calls in that window of time. A rule with a For and no
	// From starts where the window of the rule before it ended.
	From *duration `json:"from"`
	For  duration  `json:"for"`
	// Calls: only so many calls, all together.
	Calls int `json:"calls"`
	// P: only with that probability; the dice start the same every time.
	P *float64 `json:"p"`

	// Vector is the id of a recorded answer; nothing else may be said with it
	// but delays.
	Vector string `json:"vector"`
	// Hang is short for the fault "hang".
	Hang           bool              `json:"hang"`
	Fault          llmtest.Fault     `json:"fault"`
	Status         int               `json:"status"`
	Header         map[string]string `json:"header"`
	RetryAfter     string            `json:"retry_after"`
	RetryAfterDate duration          `json:"retry_after_date"`
	Delay          duration          `json:"delay"`
	DelayJitter    duration          `json:"delay_jitter"`
	BodyDelay      duration          `json:"body_delay"`
	Text           string            `json:"text"`
	Code           string            `json:"code"`
	Type           string            `json:"type"`
	Finish         string            `json:"finish"`
	Body           *string           `json:"body"`
	Size           int               `json:"size"`
	Stream         struct {
		FirstDelay duration          `json:"first_delay"`
		TokenDelay duration          `json:"token_delay"`
		Comments   int               `json:"comments"`
		After      int               `json:"after"`
		End        llmtest.StreamEnd `json:"end"`
	} `json:"stream"`

	reply      llmtest.Reply
	start, end time.Duration // the window; an end of 0 means for ever
	used       int           // how many of Calls are used up
}

// duration is "300ms" or a number of seconds in JSON.
type duration time.Duration

// UnmarshalJSON implements json.Unmarshaler.
func (d *duration) UnmarshalJSON(raw []byte) error {
	var seconds float64
	if json.Unmarshal(raw, &seconds) == nil {
		*d = duration(seconds * float64(time.Second))
	} else {
		var text string
		if err := json.Unmarshal(raw, &text); err != nil {
			return err
		}
		parsed, err := time.ParseDuration(text)
		if err != nil {
			return err
		}
		*d = duration(parsed)
	}
	if *d < 0 {
		return errors.New("a duration must not be negative")
	}
	return nil
}

// parseScript reads a script file and checks every rule.
func parseScript(raw []byte) (script, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	var s script
	if err := dec.Decode(&s); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is something after the script's object")
	}
	if s == nil {
		s = script{}
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(s)) {
		var at time.Duration
		for i, r := range s[name] {
			if r == nil {
				errs = append(errs, fmt.Errorf("%s, rule %d: is null", name, i+1))
				continue
			}
			var err error
			if at, err = r.compile(at); err != nil {
				errs = append(errs, fmt.Errorf("%s, rule %d: %w", name, i+1, err))
			}
		}
	}
	return s, errors.Join(errs...)
}

// compile builds the rule's reply and window, which starts at at, and returns
// where the next one starts.
func (r *rule) compile(at time.Duration) (time.Duration, error) {
	switch {
	case r.From != nil:
		r.start = time.Duration(*r.From)
	case r.For > 0:
		r.start = at
	}
	if r.For > 0 {
		r.end = r.start + time.Duration(r.For)
		at = r.end
	}
	r.reply = llmtest.Reply{
		Status: r.Status, Header: r.Header, RetryAfter: r.RetryAfter, RetryAfterDate: time.Duration(r.RetryAfterDate),
		Fault: r.Fault, Text: r.Text, Code: r.Code, Type: r.Type, Finish: r.Finish, Size: r.Size,
		Stream: llmtest.Stream{
			FirstDelay: time.Duration(r.Stream.FirstDelay), TokenDelay: time.Duration(r.Stream.TokenDelay),
			Comments: r.Stream.Comments, After: r.Stream.After, End: r.Stream.End,
		},
	}
	if r.Body != nil {
		r.reply.Body = []byte(*r.Body)
	}
	if r.Vector != "" {
		v, err := llmtest.FindVector(r.Vector)
		if err != nil {
			return at, err
		}
		r.reply = v.Reply()
	}
	if r.Hang {
		r.reply.Fault = llmtest.Hang
	}
	r.reply.Delay, r.reply.BodyDelay = time.Duration(r.Delay), time.Duration(r.BodyDelay)
	return at, r.check()
}

func (r *rule) check() error {
	if r.P != nil && (*r.P < 0 || *r.P > 1) {
		return errors.New("p must be from 0 to 1")
	}
	if r.Status != 0 && (r.Status < 200 || r.Status > 599) {
		return errors.New("status must be from 200 to 599")
	}
	const maxSize = 1 << 30
	if r.Calls < 0 || r.Size < 0 || r.Size > maxSize || r.Stream.Comments < 0 || r.Stream.After < 0 {
		return fmt.Errorf("a number is below 0, or size above %d", maxSize)
	}
	switch r.reply.Fault {
	case llmtest.NoFault, llmtest.Hang, llmtest.Silence, llmtest.Reset, llmtest.ResetBody, llmtest.CutLength, llmtest.CutChunked, llmtest.CutAfter, llmtest.Garbage:
	default:
		return fmt.Errorf("unknown fault %q", r.Fault)
	}
	switch r.Stream.End {
	case llmtest.EndDone, llmtest.EndNoDone, llmtest.EndClose, llmtest.EndCut, llmtest.EndReset, llmtest.EndSilence, llmtest.EndErrorChunk, llmtest.EndErrorEvent:
	default:
		return fmt.Errorf("unknown stream end %q", r.Stream.End)
	}
	return nil
}

// player is a script at work: its clock, its dice and its counts.
type player struct {
	now func() time.Time

	mu    sync.Mutex // guards all below and the used of every rule
	dice  *rand.Rand
	begun time.Time
}

func newPlayer(seed uint64, now func() time.Time) *player {
	return &player{now: now, dice: rand.New(rand.NewPCG(seed, seed))}
}

// script is the script of one provider with those rules.
func (p *player) script(rules []*rule) llmtest.Script {
	return func(c llmtest.Call) llmtest.Reply {
		p.mu.Lock()
		defer p.mu.Unlock()
		now := p.now()
		if p.begun.IsZero() {
			p.begun = now
		}
		for _, r := range rules {
			if p.applies(r, c, now.Sub(p.begun)) {
				reply := r.reply
				if r.DelayJitter > 0 {
					reply.Delay += time.Duration(p.dice.Int64N(int64(r.DelayJitter)))
				}
				return reply
			}
		}
		return llmtest.Reply{}
	}
}

// applies reports whether the rule is the call's, and counts it if so.
func (p *player) applies(r *rule, c llmtest.Call, at time.Duration) bool {
	switch {
	case r.Model != "" && r.Model != c.Model:
		return false
	case at < r.start || r.end > 0 && at >= r.end:
		return false
	case r.Calls > 0 && r.used >= r.Calls:
		return false
	case r.P != nil && p.dice.Float64() >= *r.P:
		return false
	}
	r.used++
	return true
}
