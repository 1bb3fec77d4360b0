package config

import (
	"os"
	"strings"

	"github.com/kelseyhightower/envconfig"
)

// Environment is where variables come from. It is read-only after it was made,
// and safe for concurrent use.
type Environment struct {
	// vars are all variables there are.
	vars map[string]string
	// process fills a pointer to a struct of settings.
	process func(prefix string, spec any) error
	// problems are what was wrong with the file.
	problems []Finding
}

// Process returns the environment of this process, after adding to it what the
// file called dotenv says, if there is one: variables that exist already, even
// empty, win. Call it once, before anything else reads the environment.
func Process(dotenv string) *Environment {
	problems := loadDotenv(dotenv)
	vars := make(map[string]string)
	for _, pair := range os.Environ() {
		name, value, _ := strings.Cut(pair, "=")
		vars[name] = value
	}
	return &Environment{vars: vars, process: envconfig.Process, problems: problems}
}

// reader reads specs from an environment and remembers which variables there are.
type reader struct {
	env    *Environment
	report *Report
	// owners names what every known variable is about, by its name.
	owners map[string]string
	// prefixes are the starts of the names that are ours, underscore included.
	prefixes []string
}

func newReader(env *Environment, report *Report) *reader {
	report.Problems = append(report.Problems, env.problems...)
	return &reader{env: env, report: report, owners: make(map[string]string)}
}

// read fills spec and reports what is wrong with its variables. owner says whose
// they are, such as "backend vllm".
func (r *reader) read(prefix, owner string, spec any) []field {
	list, err := fields(prefix, spec)
	if err == nil {
		err = r.env.process(prefix, spec)
	}
	if err != nil { // the settings take every value, so the spec itself is wrong
		r.report.problem(prefix, "", "%s", err)
		return nil
	}
	for _, f := range list {
		text, exists := r.env.vars[f.name]
		_, mayBeEmpty := f.tag.Lookup("empty")
		given := strings.TrimSpace(text) != "" || exists && mayBeEmpty
		f.bind(f.name, given)
		if !given {
			_ = f.Set(f.tag.Get("default"))
		}
		for _, fl := range f.flaws() {
			r.report.problem(f.name, fl.mend, "%s", fl.wrong)
		}
		if instead := f.tag.Get("inert"); instead != "" && given && f.active() {
			r.report.warn(f.name, "", "is set but not in effect in this version: %s", instead)
		}
		if other, taken := r.owners[f.name]; taken {
			r.report.problem(f.name, "give one of them another name", "belongs to %s and to %s", other, owner)
		}
		r.owners[f.name] = owner
	}
	if prefix != "" {
		r.prefixes = append(r.prefixes, prefix+"_")
	}
	return list
}
