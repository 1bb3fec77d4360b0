package main

import (
	"context"

	"understudy/internal/job"
)

// maxJob is the longest job read, in bytes: the most any NATS server takes, and
// what workers take by object store unless told otherwise.
const maxJob = 64 << 20

// jobOptions are the flags of job.
type jobOptions struct {
	file, id, queue string
	noWait, json    bool
}

// job publishes a job as it is written.
func (a *app) job(ctx context.Context, o *jobOptions, args []string) error {
	payload, err := a.readJob(ctx, o.file, args, "submit job")
	if err != nil {
		return err
	}
	ord, err := addressed(o, payload)
	if err != nil {
		return err
	}
	if err := a.checkJob(ord.key, ord.payload, "submit job"); err != nil {
		return err
	}
	ctx, c, done, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer done()
	if o.noWait {
		ord.unawaited = true
		return a.leave(ctx, c, ord)
	}
	out, err := a.place(ctx, c, ord)
	if err != nil {
		return err
	}
	f := asStored
	if o.json {
		f = asLine
	}
	return a.report(out, f)
}

// readJob reads the job in file, which is all that a command of this kind is
// given: args must be empty.
func (a *app) readJob(ctx context.Context, file string, args []string, command string) ([]byte, error) {
	if len(args) > 0 {
		return nil, usage(command, "there is an argument too many, %q; a file is given with -f", args[0])
	}
	if file == "-" && a.terminals.in {
		return nil, usage(command, "there is no job: give a file with -f, or write it to standard input")
	}
	in, done, err := a.open(file)
	if err != nil {
		return nil, err
	}
	defer done()
	return readCapped(ctx, in, maxJob, "the job")
}

// addressed takes the job's address from the flags, or else from the job.
func addressed(o *jobOptions, payload []byte) (order, error) {
	queue, id, payload, err := job.TakeAddress(payload)
	if err != nil {
		return order{}, usage("submit job", "%v", err)
	}
	if o.queue != "" {
		queue = o.queue
	}
	if o.id != "" {
		id = o.id
	}
	ord := order{key: key{queue, id}, payload: payload, newID: id == ""}
	if ord.newID {
		ord.id = job.NewID()
	}
	return ord, nil
}

// leave publishes a job and prints where its result will be.
func (a *app) leave(ctx context.Context, c *client, o order) error {
	_, known, err := a.known(ctx, c, o)
	if err != nil {
		return err
	}
	if !known {
		if err := a.store(ctx, c, o); err != nil {
			return err
		}
	}
	return a.print(c.subjects.Receipt(o.queue, o.id).Encode(), []byte("\n"))
}

// report prints a result and says what is wrong with it.
func (a *app) report(out outcome, f form) error {
	if err := a.printResult(out, f); err != nil {
		return err
	}
	if out.succeeded() {
		return nil
	}
	a.explain(out)
	return errFailed
}
