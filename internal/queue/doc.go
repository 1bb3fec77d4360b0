// Package queue takes jobs from the work queue and keeps them.
//
// It owns the streams and consumers, and the [Source] through which a worker
// takes jobs: it asks the server only for as many as there are free slots,
// hands each over as a [Delivery] with a lease, keeps the leases alive while
// the jobs run, and settles them. A delivery is at least once: what makes a
// result happen once is the commit in package results, not the ack here.
package queue
