// Package llmtest is a scripted LLM provider that speaks the OpenAI API over
// real HTTP and misbehaves on demand.
//
// [New] starts one for a test; [NewProvider] makes one as an http.Handler. A
// [Script] decides about each [Call] what [Reply] it gets: an answer, an error, a
// recorded answer of a real provider ([Vectors]), or a fault of the transport
// such as a hang, a reset or a cut body. The zero Reply is a correct answer that
// echoes the prompt. The provider records every call, what became of it, and how
// many ran at once.
package llmtest
