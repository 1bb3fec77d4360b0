// Package worker is the process as a value: [New] checks a [Config] whole,
// [Worker.Run] serves until its context ends and returns when everything it
// started is gone.
//
// One job goes through ten steps; job.go draws them. What a worker promises
// rests on their order: the result is committed before the job is acknowledged,
// the dead letter is stored before the job leaves the queue.
package worker
