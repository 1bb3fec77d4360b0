package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"os"
	"strings"
	"time"

	"understudy/internal/job"
)

// maxLine is the longest line of a batch file, in bytes: as long as a job may be.
const maxLine = maxJob

// batchHash is how many bytes of the content's hash name a batch.
const batchHash = 10

// input is a batch file that was checked. Lines are read again when they are
// published, so that the size of the file does not matter.
type input struct {
	file  *os.File
	batch string
	lines []line
	seed  maphash.Seed
}

// line is where a job is in the file.
type line struct {
	number int // from 1, blank lines counted
	at     int64
	size   int
	// sum tells whether the line is still the one that was checked, custom
	// whether a result is that of this line; 0 when the line has no custom_id.
	sum, custom uint64
}

// readInput checks every line of a file. The error lists all that are wrong.
func (a *app) readInput(ctx context.Context, name string, o *batchOptions) (*input, error) {
	const command = "submit batch"
	if sameFile(name, o.out) {
		return nil, usage(command, "the results would overwrite the jobs: choose another -o")
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, usage("", "%v", err)
	}
	in := &input{file: file, seed: maphash.MakeSeed()}
	decoder, err := a.decoder()
	if err != nil {
		in.close()
		return nil, err
	}
	hash := sha256.New()
	s := &scanner{in: in, decoder: decoder, queue: o.queue, seen: make(map[string]int), now: a.now()}
	if err := s.scan(ctx, io.TeeReader(file, hash)); err != nil {
		in.close()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, usage("", "%s cannot be read: %v", name, err)
	}
	if len(s.wrong) > 0 {
		in.close()
		return nil, usage("", "%s: %s wrong, nothing is queued\n%s", name, isAre(len(s.wrong), "line"), strings.Join(s.wrong, "\n"))
	}
	if len(in.lines) == 0 {
		in.close()
		return nil, usage(command, "%s holds no job", name)
	}
	switch {
	case o.id != "":
		in.batch = o.id
	case o.fresh:
		in.batch = "b-" + strings.ToLower(job.NewID()[:2*batchHash])
	default:
		in.batch = "b-" + hex.EncodeToString(hash.Sum(nil)[:batchHash])
	}
	return in, nil
}

// isAre is "1 line is", "2 lines are".
func isAre(n int, what string) string {
	if n == 1 {
		return times(n, what) + " is"
	}
	return times(n, what) + " are"
}

func (in *input) close() { _ = in.file.Close() } // only read

// id is the job id of a line.
func (in *input) id(l *line) string { return in.batch + lineSuffix(l.number) }

// payload reads a line again.
func (in *input) payload(l *line) ([]byte, error) {
	data := make([]byte, l.size)
	if _, err := in.file.ReadAt(data, l.at); err != nil || maphash.Bytes(in.seed, data) != l.sum {
		return nil, usage("", "line %d has changed since it was checked: leave the file alone while the batch runs", l.number)
	}
	return data, nil
}

// owns reports whether a result with this custom_id is that of the line.
func (in *input) owns(l *line, customID string) bool {
	if l.custom == 0 {
		return customID == in.id(l)
	}
	return maphash.String(in.seed, customID) == l.custom
}

// fits returns an error that lists every line the server would not take.
func (in *input) fits(ctx context.Context, c *client) error {
	var wrong []string
	for _, l := range in.lines {
		if int64(l.size) > c.nc.MaxPayload() {
			wrong = append(wrong, fmt.Sprintf("line %d: has %d bytes; the server takes %d (max_payload)", l.number, l.size, c.nc.MaxPayload()))
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	has, err := c.store.HasPayloads(ctx)
	switch {
	case err != nil && ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil || has:
		return err
	}
	return usage("", "%s too big, nothing is queued. Bigger ones need the object store %s: workers make it, unless WORKER_MAX_PAYLOAD is 0\n%s",
		isAre(len(wrong), "line"), c.subjects.PayloadsBucket(), strings.Join(wrong, "\n"))
}

// scanner reads and checks a batch file.
type scanner struct {
	in      *input
	decoder *job.Decoder
	queue   string
	seen    map[string]int // the line of each custom_id
	now     time.Time
	wrong   []string
}

func (s *scanner) scan(ctx context.Context, r io.Reader) error {
	lines := bufio.NewReaderSize(r, 1<<16)
	at, number := int64(0), 0
	for ctx.Err() == nil {
		text, size, err := readLine(lines)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if size > 0 {
			number++
			s.line(line{number: number, at: at, size: size}, text)
			at += int64(size)
		}
		if err != nil {
			return nil //nolint:nilerr // the end of the file
		}
	}
	return context.Cause(ctx)
}

// readLine reads one line with its end. Text is nil when the line is longer than
// maxLine; size is what the line has in the file.
func readLine(r *bufio.Reader) (text []byte, size int, err error) {
	for {
		part, err := r.ReadSlice('\n')
		size += len(part)
		if size <= maxLine+1 {
			text = append(text, part...)
		} else {
			text = nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return text, size, err
		}
	}
}

// line checks one line and notes where it is, or what is wrong with it.
func (s *scanner) line(l line, text []byte) {
	if text == nil {
		s.bad(l, fmt.Errorf("is longer than %d bytes", maxLine))
		return
	}
	if l.number == 1 {
		text = s.withoutMark(&l, text)
	}
	trimmed := bytes.TrimSpace(text)
	if len(trimmed) == 0 {
		return
	}
	l.at += int64(bytes.Index(text, trimmed))
	l.size = len(trimmed)
	l.sum = maphash.Bytes(s.in.seed, trimmed)
	// The batch is not known yet; an id of its length is checked with -id.
	own := "b" + lineSuffix(l.number)
	j, err := s.decoder.Decode(s.queue, own, trimmed, nil)
	if err == nil {
		err = j.CheckAhead(s.now)
	}
	if err != nil {
		s.bad(l, err)
		return
	}
	if j.CustomID != own {
		if other, twice := s.seen[j.CustomID]; twice {
			s.bad(l, fmt.Errorf("custom_id: is that of line %d, too", other))
			return
		}
		s.seen[j.CustomID] = l.number
		l.custom = maphash.String(s.in.seed, j.CustomID)
	}
	s.in.lines = append(s.in.lines, l)
}

// withoutMark drops a byte order mark, which some editors put first.
func (s *scanner) withoutMark(l *line, text []byte) []byte {
	rest, found := bytes.CutPrefix(text, []byte("\ufeff"))
	if found {
		l.at += int64(len(text) - len(rest))
	}
	return rest
}

func (s *scanner) bad(l line, err error) {
	s.wrong = append(s.wrong, fmt.Sprintf("line %d: %v", l.number, err))
}
