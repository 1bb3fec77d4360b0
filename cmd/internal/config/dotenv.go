package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/joho/godotenv"
)

// maxDotenv is the largest .env file that is read, in bytes. To find a bad line
// takes time quadratic in it.
const maxDotenv = 64 << 10

// loadDotenv sets the variables of a file that are not set yet. A file that does
// not exist is no problem.
func loadDotenv(file string) []Finding {
	data, err := readFile(file, maxDotenv)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return []Finding{{Variable: file, Wrong: err.Error(), Mend: "make it a readable file, or remove it"}}
	}
	vars, line := parseDotenv(string(data))
	if line > 0 {
		return []Finding{{
			Variable: fmt.Sprintf("%s:%d", file, line), Wrong: "cannot be understood",
			Mend: "use NAME=value, or NAME='value' for a value with spaces, # or $",
		}}
	}
	var problems []Finding
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		if _, exists := os.LookupEnv(name); exists {
			continue
		}
		if err := os.Setenv(name, vars[name]); err != nil {
			problems = append(problems, Finding{Variable: file, Wrong: "holds a name or a value that no variable can have"})
		}
	}
	return problems
}

// parseDotenv returns the variables of a file, or the number of the line that
// cannot be understood. The parser's own errors are of no use: they hold values.
func parseDotenv(text string) (vars map[string]string, badLine int) {
	vars, err := parseLines(text)
	if err == nil {
		return vars, 0
	}
	// The bad statement starts behind the longest run of lines that is good.
	good := 0
	for line, end := 1, 0; end < len(text); line++ {
		if next := strings.IndexByte(text[end:], '\n'); next >= 0 {
			end += next + 1
		} else {
			end = len(text)
		}
		if _, err := parseLines(text[:end]); err == nil {
			good = line
		}
	}
	return nil, good + 1
}

func parseLines(text string) (map[string]string, error) {
	vars, err := godotenv.Unmarshal(text)
	if _, nameless := vars[""]; err == nil && nameless {
		err = errors.New("a line without =")
	}
	return vars, err
}

// readFile returns what file holds, which must be a regular file of at most
// limit bytes. Its error names neither the file nor anything in it.
func readFile(file string, limit int64) ([]byte, error) {
	info, err := os.Stat(file) // before opening it: opening a pipe would block
	switch {
	case err != nil:
		return nil, plainFileError(err)
	case info.IsDir():
		return nil, errors.New("is a directory, not a file")
	case !info.Mode().IsRegular():
		return nil, errors.New("is not a regular file")
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, plainFileError(err)
	}
	defer func() { _ = f.Close() }() // only read
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	switch {
	case err != nil:
		return nil, plainFileError(err)
	case int64(len(data)) > limit:
		return nil, fmt.Errorf("is larger than %d bytes", limit)
	}
	return data, nil
}

// plainFileError is the cause of a file error without the file's name.
func plainFileError(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("cannot be read: %w", fs.ErrNotExist)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("cannot be read: %w", fs.ErrPermission)
	}
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		err = path.Err
	}
	return fmt.Errorf("cannot be read: %w", err)
}
