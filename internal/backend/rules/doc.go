// Package rules is the backend that needs no model: regular expressions over
// the last thing the user said, and the texts to answer with. It keeps a fleet
// polite while every real backend is down.
//
// The rules stand in a small text file, see [Parse]; without one a built-in
// file serves, default.rules, which is also the example to start from. Answers
// are marked as degraded. Nothing in a file or a message is ever executed, and
// matching takes time linear in the message.
package rules
