package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"understudy/internal/job"
	"understudy/internal/llmtest"
	"understudy/internal/natstest"
)

func TestAnEditedJobRunsAsItWasEdited(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.died("low", "x", `{ "messages": [],   "temperature": 0, "model":"a"}`)
	code, out, stderr := b.submit("dead", "edit", "x", "-set", `body.model="b"`, "-set", `route="r"`)
	require.Equal(t, exitOK, code, stderr)
	require.Equal(t, "x\n", out)
	require.Equal(t, "submit: job x is edited; to run it: submit dead redrive x -queue low\n", stderr)
	require.Equal(t, []string{"x"}, b.letters())
	code, _, _ = b.submit("dead", "redrive", "x", "-queue", "low")
	require.Equal(t, exitOK, code)
	tk := b.take("low")
	requireBytes(t, `{"body":{ "messages": [],   "temperature": 0, "model":"b"},"route":"r"}`, tk.Data())
	b.finish(tk, job.Failed)

	code, out, stderr = b.submit("dead", "edit", "x", "-restore", "-json") // after another death
	require.Equal(t, exitOK, code, stderr)
	require.JSONEq(t, `{"id":"x","queue":"low","changed":true,
		"old_sha256":"`+digest(tk.Data())+`","new_sha256":"`+digest([]byte(`{ "messages": [],   "temperature": 0, "model":"a"}`))+`"}`, out)

	c := b.command(`{"prompt": "whole"}`).start("dead", "edit", "x", "-f", "-", "-redrive", "-wait")
	tk = b.take("low")
	requireBytes(t, `{"prompt": "whole"}`, tk.Data())
	require.Equal(t, "2", tk.Headers().Get(job.HeaderRedrives))
	b.finish(tk, job.Succeeded)
	require.Equal(t, exitOK, c.wait(), c.err)
	require.Equal(t, "x\tsucceeded\tstandin\n", c.out.String())
	require.Empty(t, b.letters())
}

func TestAWrongEditIsRefusedAndChangesNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.died("default", "x", `{"body":{"prompt":"p"},"url":"/v1/completions"}`)
	for _, tc := range []struct{ stdin, flag, value, want string }{
		{"", "-set", `timeout_ms="soon"`, "timeout_ms: must be a number, not a string"},
		{"", "-set", `route="no route"`, "route: ' ' is not allowed; use A-Z a-z 0-9 _ -"},
		{"", "-set", `body.stream=1`, "body.stream: must be a boolean, not a number"},
		{"", "-set", `url="/v1/embeddings"`, "body.input: is required by url /v1/embeddings; with prompt it is /v1/completions"},
		{"", "-set", `route=r`, `-set route: the value is no JSON; a text needs quotes: -set 'route="…"'`},
		{`{"prompt"`, "-f", "-", "payload: is not valid JSON: see byte 9 of 9"},
		{"", "-f", "-", "payload: is empty"},
		{"", "-f", "no/such/file", "open no/such/file: no such file or directory"},
	} {
		code, out, stderr := b.submitWith(tc.stdin, "dead", "edit", "x", tc.flag, tc.value, "-redrive")
		require.Equal(t, exitUsage, code, "%s: %s", tc.value, stderr)
		require.Empty(t, out)
		first, _, _ := strings.Cut(stderr, "\n")
		require.Equal(t, "submit: "+tc.want, first)
	}
	code, out, stderr := b.submit("dead", "edit", "x", "-set", "url=\"/v1/completions\"", "-json")
	require.Equal(t, exitOK, code)
	require.Contains(t, out, `"changed":false`)
	require.Equal(t, "submit: job x is as it was; nothing was changed\n", stderr)
	require.Empty(t, b.told("default", "x"))
	require.Zero(t, b.queued())
	code, _, stderr = b.submit("dead", "edit", "nothing", "-restore")
	require.Equal(t, exitFailed, code)
	require.Equal(t, "submit: there is no dead letter of job nothing\n", stderr)
}

func TestARealWorkerRunsAnEditedJob(t *testing.T) {
	t.Parallel()
	b := bareBench(t, natstest.Options{})
	b.work(llmtest.Steps(llmtest.Answer("yes")))
	b.publish("default", "x", `{"messages":[{"role":"user","content":"Hi"}],"route":"gone","body":7}`)
	code, _, _ := b.submit("result", "x", "-wait", "1m")
	require.Equal(t, exitFailed, code)
	code, out, stderr := b.submit("dead", "show", "x") // at once
	require.Equal(t, exitOK, code, stderr)
	require.Contains(t, out, "reason  invalid_job\n")
	code, out, stderr = b.submitWith(`{"messages":[{"role":"user","content":"Hi"}]}`, "dead", "edit", "x", "-f", "-", "-redrive", "-wait")
	require.Equal(t, exitOK, code, stderr)
	require.Equal(t, "x\tsucceeded\tmodel1\n", out)
	require.Empty(t, b.letters())
	last := ""
	for e, err := range b.store.Events(t.Context(), "default", "x") {
		require.NoError(t, err)
		last = string(e.Type)
	}
	require.Equal(t, string(job.EventCompleted), last, "the last event is the job's status")
}
