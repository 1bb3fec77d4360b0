// Package doctor looks at a whole installation from outside and says what is
// wrong with it and how to mend it. It only reads: nothing it does changes the
// server, a stream, a consumer or a job.
//
// [Examine] looks at settings and health and returns findings. [Reconcile] goes
// through every job that was accepted and says of each one without an end where
// it is. Both ask through a door that turns what NATS does not permit into an
// answer at once, because a denied request is otherwise only a timeout.
package doctor
