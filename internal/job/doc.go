// Package job is the wire contract of understudy: the subjects, the job a
// publisher sends, and the result, events and dead letter it gets back.
//
// Every other package speaks in these types; this one knows only the standard
// library. Decoding is strict and names the field that is wrong, because a job
// that is refused is a letter to a person. What belongs to the provider, the
// request body and the answer, is carried as raw bytes and never re-encoded.
package job
