package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// output collects results in a partial file as they come, and puts them into
// the order of the input at the end. It is used by one goroutine.
type output struct {
	name string // empty for standard output
	// special is a device or a pipe, which is written to and never replaced.
	special bool
	partial string
	file    *os.File
	at      []extent // by position in the input; size 0 is not there yet
	end     int64
}

// extent is where a result is in the partial file.
type extent struct {
	at   int64
	size int
}

// newOutput opens the partial file for the results of n lines.
func newOutput(name string, n int) (*output, error) {
	o := &output{at: make([]extent, n)}
	if name != "-" {
		o.name = name
		if real, err := filepath.EvalSymlinks(name); err == nil {
			o.name = real
		}
	}
	info, err := os.Stat(o.name)
	switch {
	case err == nil && info.IsDir():
		return nil, usage("", "the results cannot be written: %s is a directory", name)
	case err == nil:
		o.special = !info.Mode().IsRegular()
	}
	if o.temporary() {
		o.file, err = os.CreateTemp("", "submit-*.partial")
	} else {
		o.file, err = os.OpenFile(o.name+".partial", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	}
	if err != nil {
		return nil, usage("", "the results cannot be written: %v", err)
	}
	o.partial = o.file.Name()
	return o, nil
}

// temporary tells that the partial file is of no use after this run.
func (o *output) temporary() bool { return o.name == "" || o.special }

// has reports whether the result of the line at a position is there.
func (o *output) has(position int) bool { return o.at[position].size > 0 }

// write adds the result of the line at a position: one line of JSON.
func (o *output) write(position int, data []byte) error {
	text, err := compact(data)
	if err != nil {
		return err
	}
	if _, err := o.file.WriteAt(text, o.end); err != nil {
		return fmt.Errorf("write %s: %w", o.partial, err)
	}
	o.at[position] = extent{o.end, len(text)}
	o.end += int64(len(text))
	return nil
}

// finish writes the results in order: to stdout, or to a new file that takes the
// place of the old one at once. Then the partial file goes.
func (o *output) finish(stdout io.Writer) error {
	switch {
	case o.name == "":
		return o.copyTo(stdout)
	case o.special:
		file, err := os.OpenFile(o.name, os.O_WRONLY, 0)
		if err != nil {
			return fmt.Errorf("write the results: %w", err)
		}
		return errors.Join(o.copyTo(file), file.Close())
	}
	file, err := os.CreateTemp(filepath.Dir(o.name), filepath.Base(o.name)+".*.tmp")
	if err != nil {
		return fmt.Errorf("write the results: %w", err)
	}
	err = o.copyTo(file)
	if err == nil {
		err = file.Sync()
	}
	err = errors.Join(err, file.Chmod(o.mode()), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), o.name)
	}
	if err != nil {
		_ = os.Remove(file.Name()) // the first error counts
		return fmt.Errorf("write the results (they are in %s): %w", o.partial, err)
	}
	return os.Remove(o.partial)
}

// mode is that of the file to be replaced, or one that only its owner reads:
// answers may be private.
func (o *output) mode() os.FileMode {
	if info, err := os.Stat(o.name); err == nil {
		return info.Mode().Perm()
	}
	return 0o600
}

// copyTo writes the results in order.
func (o *output) copyTo(w io.Writer) error {
	out := bufio.NewWriterSize(w, 1<<16)
	for _, e := range o.at {
		if _, err := io.Copy(out, io.NewSectionReader(o.file, e.at, int64(e.size))); err != nil {
			return err
		}
	}
	return out.Flush()
}

// close closes the partial file, and removes one that has no name of its own.
func (o *output) close() {
	_ = o.file.Close() // what counts was synced under another name
	if o.temporary() {
		_ = os.Remove(o.partial)
	}
}
