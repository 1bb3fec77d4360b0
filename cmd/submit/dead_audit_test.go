package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"understudy/internal/job"
)

// told are the events of a job about its dead letters, without what every such
// event has.
func (b *bench) told(queueName, id string) []string {
	b.t.Helper()
	list := []string{}
	for e, err := range b.store.Events(b.t.Context(), queueName, id) {
		require.NoError(b.t, err)
		require.Equal(b.t, "understudy/submit", e.Source)
		require.Equal(b.t, noon(), e.Time)
		require.NotContains(b.t, string(e.Data), "SECRET")
		if e.Type == job.EventDeadLettered {
			list = append(list, "dead")
			continue
		}
		var h job.LetterHandled
		require.NoError(b.t, e.DataAs(&h))
		require.Equal(b.t, queueName, h.Queue)
		require.Regexp(b.t, `^[^@\s]+@[^@\s]+$`, h.By)
		_, did, _ := strings.Cut(strings.TrimPrefix(string(e.Type), "understudy."), ".")
		list = append(list, fmt.Sprintf("%s %d %s %d %.4s %.4s", did, h.Seq, h.Reason, h.Redrives, h.OldSHA256, h.NewSHA256))
	}
	return list
}

func TestWhatIsDoneWithADeadLetterIsTold(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.died("low", "x", `{"prompt":"SECRET 1"}`)
	code, _, stderr := b.submit("dead", "edit", "x", "-set", `prompt="SECRET 2"`)
	require.Equal(t, exitOK, code, stderr)
	code, _, stderr = b.submit("dead", "redrive", "x")
	require.Equal(t, exitOK, code, stderr)
	b.finish(b.take("low"), job.Failed)
	code, _, stderr = b.submit("dead", "redrive", "x")
	require.Equal(t, exitOK, code, stderr)
	b.finish(b.take("low"), job.Failed)
	code, _, stderr = b.submit("dead", "purge", "x", "-yes")
	require.Equal(t, exitOK, code, stderr)
	require.Equal(t, []string{
		"edited 1 timeout 0 " + digest([]byte(`{"prompt":"SECRET 1"}`))[:4] + " " + digest([]byte(`{"prompt":"SECRET 2"}`))[:4],
		"redriven 2 timeout 0  ", "redriven 3 timeout 1  ", "purged 4 timeout 2  ",
	}, b.told("low", "x"))
}

func TestTheHistoryOfADeadLetterIsShown(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.died("default", "x", `{"prompt":"p"}`)
	_, out, _ := b.submit("dead", "show", "x")
	require.NotContains(t, out, "HISTORY")
	_, _, _ = b.submit("dead", "redrive", "x")
	b.finish(b.take("default"), job.Failed)
	_, _, _ = b.submit("dead", "edit", "x", "-set", `prompt="q"`)
	code, out, stderr := b.submit("dead", "show", "x")
	require.Equal(t, exitOK, code, stderr)
	require.Contains(t, out, "\nThe job was edited: -original shows it as it was published.\n\nHISTORY\n"+
		"2026-11-22 12:00:00Z  dead letter redriven by "+who()+"\n2026-11-22 12:00:00Z  dead letter edited by "+who()+", after redrive 1\n")
	_, out, _ = b.submit("dead", "show", "x", "-json")
	require.Regexp(t, `,"history":\[\{.*"type":"understudy.dead_letter.redriven".*\},\{.*"type":"understudy.dead_letter.edited".*\}\]\}\n$`, out)
	d, err := job.DecodeDeadLetter([]byte(out))
	require.NoError(t, err)
	require.Equal(t, 1, d.Redrives)
	_, out, _ = b.submit("dead", "show", "x", "-original")
	require.True(t, strings.HasSuffix(out, "\nJOB\n{\n  \"prompt\": \"p\"\n}\n"), out)
	_, out, _ = b.submit("dead", "show", "x", "-payload")
	require.True(t, strings.HasSuffix(out, "\nJOB\n{\n  \"prompt\": \"q\"\n}\n"), out)
}

// Somebody else's job took the place of the one that was to be put back.
func TestARedriveThatDoesNotComeAboutIsTakenBack(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.died("default", "x", `{"prompt":"p"}`)
	b.publish("default", "other", `{"prompt":"p"}`)
	b.limit(1)
	c := b.command("").start("dead", "redrive", "x")
	c.err.await(t, "is full")
	c.interrupt()
	require.Equal(t, exitInterrupted, c.wait())
	require.Equal(t, []string{"redriven 1 timeout 0  ", "dead"}, b.told("default", "x"))
	require.Equal(t, []string{"x"}, b.letters())
	_ = b.take("default")

	b.limit(-1)
	b.publish("default", "x", `{"prompt":"newer"}`) // known before: nothing is told
	code, _, _ := b.submit("dead", "redrive", "x")
	require.Equal(t, exitFailed, code)
	require.Len(t, b.told("default", "x"), 2)
}
