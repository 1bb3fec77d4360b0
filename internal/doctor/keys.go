package doctor

import (
	"context"
	"iter"
	"slices"
	"strings"
)

// page is a part of the sorted list of the subjects of a stream.
type page struct {
	subjects []string
	// total is how many there are in all.
	total int
}

// lister returns the page that begins at an offset.
type lister func(ctx context.Context, offset int) (page, error)

// list is the lister of a stream's subjects under a pattern. A page holds at
// most 100,000 of them, which the server decides.
func (d *door) list(stream, pattern string) lister {
	return func(ctx context.Context, offset int) (page, error) {
		var answer struct {
			Total int `json:"total"`
			State struct {
				Subjects map[string]uint64 `json:"subjects"`
			} `json:"state"`
		}
		ask := struct {
			Filter string `json:"subjects_filter"`
			Offset int    `json:"offset,omitempty"`
		}{pattern, offset}
		if err := d.api(ctx, "STREAM.INFO."+stream, ask, &answer); err != nil {
			return page{}, err
		}
		p := page{subjects: make([]string, 0, len(answer.State.Subjects)), total: answer.Total}
		for s := range answer.State.Subjects {
			p.subjects = append(p.subjects, s)
		}
		slices.Sort(p.subjects)
		return p, nil
	}
}

// overlap is how many subjects of the page before are asked for again, to see
// that none between has been passed over.
const overlap = 1000

// sorted yields the subjects that list pages through, each once, in order. It
// holds one page. Subjects that go meanwhile move the later ones to lower
// offsets, so a page that does not reach back to the last subject is read again
// from further back; a subject that is there all the time is yielded for sure.
func sorted(ctx context.Context, list lister) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		c := cursor{list: list}
		for {
			fresh, err := c.advance(ctx)
			if err != nil {
				yield("", err)
				return
			}
			for _, s := range fresh {
				if !yield(s, nil) {
					return
				}
			}
			if len(fresh) == 0 || c.done {
				return
			}
		}
	}
}

// cursor is where [sorted] stands.
type cursor struct {
	list lister
	// last is the last subject, and read how many there were up to its page's end.
	last string
	read int
	done bool
}

// advance returns the subjects behind the last one, as far as the next page has them.
func (c *cursor) advance(ctx context.Context) ([]string, error) {
	p, err := follow(ctx, c.list, c.last, c.read)
	if err != nil {
		return nil, err
	}
	fresh := p.subjects
	if c.last != "" {
		i, found := slices.BinarySearch(fresh, c.last)
		if found {
			i++
		}
		fresh = fresh[i:]
	}
	c.read = p.offset + len(p.subjects)
	c.done = c.read >= p.total
	if len(fresh) > 0 {
		c.last = fresh[len(fresh)-1]
	}
	return fresh, nil
}

// placed is a page and where it begins.
type placed struct {
	page
	offset int
}

// follow reads the page that goes on behind the subject last, which was near
// the offset read.
func follow(ctx context.Context, list lister, last string, read int) (placed, error) {
	for back := overlap; ; back *= 4 {
		offset := max(read-back, 0)
		p, err := list(ctx, offset)
		if err != nil {
			return placed{}, err
		}
		if offset == 0 || len(p.subjects) > 0 && p.subjects[0] <= last {
			return placed{p, offset}, nil
		}
	}
}

// The places where a job can be, as bits.
type places uint8

const (
	inJobs places = 1 << iota
	inResults
	inEvents
	inDead
)

// located is a job's address and where it was seen.
type located struct {
	// key is "<queue>.<id>".
	key string
	in  places
}

// merge yields every key of several sorted lists once, with the places it is in.
// Each source yields subjects that begin with its prefix.
func merge(sources []source) iter.Seq2[located, error] {
	return func(yield func(located, error) bool) {
		heads := make([]head, len(sources))
		for i, s := range sources {
			next, stop := iter.Pull2(s.subjects)
			defer stop()
			heads[i] = head{source: s, next: next}
			heads[i].advance()
		}
		for {
			least, err := first(heads)
			if err != nil {
				yield(located{}, err)
				return
			}
			if least.in == 0 || !yield(least, nil) {
				return
			}
			for i := range heads {
				if heads[i].place&least.in != 0 {
					heads[i].advance()
				}
			}
		}
	}
}

// source is one of the lists that are merged.
type source struct {
	place    places
	prefix   string
	subjects iter.Seq2[string, error]
}

// head is where a source stands.
type head struct {
	source
	next func() (string, error, bool)
	key  string
	err  error
	ok   bool
}

func (h *head) advance() {
	var subject string
	subject, h.err, h.ok = h.next()
	h.key = strings.TrimPrefix(subject, h.prefix)
}

// first is the least key at the heads, with every place that has it.
func first(heads []head) (located, error) {
	var least located
	for _, h := range heads {
		switch {
		case !h.ok:
		case h.err != nil:
			return located{}, h.err
		case least.in == 0 || h.key < least.key:
			least = located{h.key, h.place}
		case h.key == least.key:
			least.in |= h.place
		}
	}
	return least, nil
}
