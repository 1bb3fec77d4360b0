package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// options are the flags, and what tests make smaller.
type options struct {
	worker  string // the worker's binary; empty means the worker as a library
	rounds  int
	jobs    int
	only    string
	side    string // a third side, see sideBarePlus; empty means none
	curves  string // of the part scale; empty means all
	points  int    // of every curve, the smallest ones; 0 means all
	json    bool
	sync    bool
	profile bool
	dir     string // of the profiles; empty means none are taken
	doc     string // the file to write the tables into, with pictures beside it

	hold   time.Duration // the provider's time with many jobs in flight
	slow   time.Duration // the provider's time on the curve of jobs in flight
	idle   time.Duration // how long the idle worker is watched
	starts int           // of the part start
}

// defaults are the options of a run without flags, of about four minutes.
func defaults() options {
	return options{
		worker: "bin/worker", rounds: 3, jobs: 20000,
		hold: 5 * time.Second, slow: 2 * time.Second, idle: 20 * time.Second, starts: 10,
	}
}

// parse reads the flags.
func (o *options) parse(args []string, stderr io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.worker, "worker", o.worker, "the worker's `binary`; another version can be measured as well")
	flags.IntVar(&o.rounds, "rounds", o.rounds, "how `often` each side runs")
	flags.IntVar(&o.jobs, "jobs", o.jobs, "jobs of a throughput run; the other parts take a share of it")
	flags.StringVar(&o.only, "only", "", "run only these `parts`, with commas between: "+strings.Join(allParts(), ", ")+"; without it, all but "+partScale)
	flags.StringVar(&o.side, "side", "", "a third `side` in throughput and slot: "+sideBarePlus+", the bare loop with the worker's reads and events")
	flags.StringVar(&o.curves, "curves", "", "draw only these `curves` of "+partScale+", with commas between: "+strings.Join(curveNames(), ", "))
	flags.IntVar(&o.points, "points", 0, "measure only so `many` points of a curve, the smallest ones; 0 measures all")
	flags.BoolVar(&o.json, "json", false, "print one JSON document with every sample")
	flags.BoolVar(&o.sync, "sync", false, "let the server sync every write to disk")
	flags.BoolVar(&o.profile, "profile", false, "run the worker inside a process of this program and take profiles (bin/, unless -cpuprofile says where)")
	flags.StringVar(&o.dir, "cpuprofile", "", "`directory` for CPU and allocation profiles of both sides; implies -profile")
	flags.StringVar(&o.doc, "doc", "", "write the tables between the markers of this `file` and the pictures beside it, after a whole run")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if o.dir != "" {
		o.profile = true
	} else if o.profile {
		o.dir = "bin"
	}
	if o.profile {
		o.worker = ""
	}
	return o.check(flags.Args())
}

// check reports every flag that cannot be; rest are the arguments behind them.
func (o *options) check(rest []string) error {
	var errs []error
	if len(rest) > 0 {
		errs = append(errs, fmt.Errorf("unexpected argument %q", rest[0]))
	}
	if o.rounds < 1 {
		errs = append(errs, fmt.Errorf("-rounds: %d is below 1", o.rounds))
	}
	const fewest = 100 // below, a share of the jobs is none
	if o.jobs < fewest {
		errs = append(errs, fmt.Errorf("-jobs: %d is below %d", o.jobs, fewest))
	}
	if o.points < 0 {
		errs = append(errs, fmt.Errorf("-points: %d is below 0", o.points))
	}
	if o.side != "" && o.side != sideBarePlus {
		errs = append(errs, fmt.Errorf("-side: %q is not %s", o.side, sideBarePlus))
	}
	errs = append(errs, among("-only", o.parts(), allParts()), among("-curves", o.drawn(), curveNames()))
	return errors.Join(errs...)
}

// among returns an error that names the first of got that is not one of known.
func among(name string, got, known []string) error {
	for _, one := range got {
		if !slices.Contains(known, one) {
			return fmt.Errorf("%s: %q is not one of %s", name, one, strings.Join(known, ", "))
		}
	}
	return nil
}

// parts are the names of the parts to run.
func (o *options) parts() []string {
	if o.only == "" {
		return partNames()
	}
	return strings.Split(o.only, ",")
}

// drawn are the names of the curves to draw.
func (o *options) drawn() []string {
	if o.curves == "" {
		return curveNames()
	}
	return strings.Split(o.curves, ",")
}

// whole reports whether the run is one whose tables are worth keeping.
func (o *options) whole() bool {
	return !o.profile && (o.only == "" || o.only == partScale && o.curves == "" && o.points == 0)
}
