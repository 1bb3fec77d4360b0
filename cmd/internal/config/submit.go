package config

import "understudy/internal/job"

// Submit is the environment of the command submit.
type Submit struct {
	// NATS says how to reach NATS.
	NATS NATS
	// Subjects are the names of the installation that the workers serve.
	Subjects job.Subjects
	// Report is what there is to say about the environment.
	Report Report
}

// ForSubmit reads what submit needs of env: NATS_* and WORKER_SUBJECT_PREFIX.
// What is wrong with the worker's other variables is not its business.
func ForSubmit(env *Environment) *Submit {
	s := &Submit{}
	r := newReader(env, &s.Report)
	s.NATS, _ = readNATS(r, "set NATS_URL or start `worker`")

	var spec workerSpec
	others := &Report{}
	newReader(&Environment{vars: env.vars, process: env.process}, others).read("WORKER", "the worker", &spec)
	for _, f := range spec.SubjectPrefix.flaws() {
		s.Report.problem(spec.SubjectPrefix.name, f.mend, "%s", f.wrong)
	}
	s.Subjects = spec.SubjectPrefix.value
	s.Report.tidy()
	return s
}
