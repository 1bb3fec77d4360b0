// Package fallback runs one job through a chain of backends until one answers.
//
// A [Route] is a chain and a policy. [Engine.Plan] resolves what one job asked
// for into a [Plan]; [Engine.Run] carries it out:
//
//	who next? (Strategy) -> ready now? -> call -> accept, or classify
//	     ^                     | no                    | failed
//	     |                     v                       v
//	     +---- pause, or hand the job back     goes on? budget left? -> stop
//
// It knows neither NATS nor HTTP nor breakers: a guarded backend may refuse a call.
package fallback
