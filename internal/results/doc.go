// Package results makes a job's end happen once and tells everybody who asked.
//
// The commit is the fence of the whole system: a result is published with
// "expected last sequence of this subject: 0", so that of any number of workers
// that ran the same job one wins and the others see it. Events go through an
// [Outbox] that never blocks a job; dead letters are stored before their job
// may leave the queue; replies are copies for those who wait.
package results
