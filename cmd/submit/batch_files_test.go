package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"understudy/internal/job"
	"understudy/internal/natstest"
)

func TestEveryWrongLineIsNamedAndNothingIsQueued(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	in := b.file("in.jsonl", strings.Join([]string{
		`{"custom_id":"a","body":{"messages":[]}}`,
		`{"custom_id":"b","body":{"messages":[]},"colour":"red"}`,
		``,
		`not JSON`,
		`{"custom_id":"a","body":{"messages":[]}}`,
		`{"custom_id":"c","body":{"messages":[]},"policy":{"max_attempts":0}}`,
		`{"custom_id":"d","url":"/v1/embeddings","body":{"messages":[]}}`,
		`{"custom_id":"` + strings.Repeat("x", maxLine) + `"}`,
		`{"custom_id":"e","body":{"messages":[]}}`,
	}, "\n"))
	out := filepath.Join(t.TempDir(), "out.jsonl")
	code, stdout, stderr := b.submit("batch", in, "-o", out)
	require.Equal(t, exitUsage, code)
	require.Empty(t, stdout)
	require.Equal(t, "submit: "+in+`: 6 lines are wrong, nothing is queued
line 2: colour: is no field of a job; there are: custom_id, method, url, body, route, chain, primary, policy, timeout_ms, not_before, deadline, reply_to, events_to, metadata
line 4: payload: is not valid JSON: see byte 2 of 8
line 5: custom_id: is that of line 1, too
line 6: policy.max_attempts: must be between 1 and 1000
line 7: body.input: is required by url /v1/embeddings; with messages it is /v1/chat/completions
line 8: is longer than 67108864 bytes
`, stderr)
	require.Zero(t, b.queued())
	require.NoFileExists(t, out)
	require.NoFileExists(t, out+".partial")
}

func TestLinesTheServerWouldNotTakeAreNamedBeforeAnythingIsQueued(t *testing.T) {
	t.Parallel()
	b := bareBench(t, natstest.Options{MaxPayload: 1 << 10})
	b.ensure("default")
	long := `{"body":{"messages":[],"user":"` + strings.Repeat("x", 1<<10) + `"}}` + "\n"
	in := b.file("in.jsonl", rows(1)+long+rows(2)[len(rows(1)):]+long)
	code, _, stderr := b.submit("batch", in, "-o", filepath.Join(t.TempDir(), "out.jsonl"))
	require.Equal(t, exitUsage, code)
	require.Equal(t, "submit: 2 lines are too big, nothing is queued. Bigger ones need the object store LLM_PAYLOADS: workers make it, unless WORKER_MAX_PAYLOAD is 0\n"+
		"line 2: has 1058 bytes; the server takes 1024 (max_payload)\nline 4: has 1058 bytes; the server takes 1024 (max_payload)\n", stderr)
	require.Zero(t, b.queued())
}

func TestLinesAreReadAsEditorsWriteThem(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.serve("default", always(job.Succeeded))
	in := b.file("in.jsonl", "\ufeff"+`{"custom_id":"first","body":{"messages":[]}}`+"\r\n\r\n  \n\t{\"messages\": []}  \r\n"+`{"custom_id":"last","body":{"messages":[]}}`)
	code, stdout, stderr := b.submit("batch", in, "-o", "-", "-id", "b")
	require.Equal(t, exitOK, code, stderr)
	list := resultsIn(t, stdout)
	require.Len(t, list, 3)
	require.Equal(t, []string{"first", "b.000004", "last"}, []string{list[0].CustomID, list[1].CustomID, list[2].CustomID})
	require.Equal(t, []string{"b.000001", "b.000004", "b.000005"}, []string{list[0].ID, list[1].ID, list[2].ID})
	require.NotContains(t, stdout, "{\n") // one line each, whatever the backend sent
}

func TestAnEmptyFileIsNoBatch(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "\n\n", "\ufeff\n"} {
		b := &bench{t: t}
		in := b.file("in.jsonl", text)
		code, _, stderr := offline(t, "", "batch", in, "-o", "out.jsonl")
		require.Equal(t, exitUsage, code)
		require.Contains(t, stderr, "holds no job")
	}
}

func TestAFileThatChangesWhileItRunsIsNoticed(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.limit(1)
	in := b.file("in.jsonl", rows(10))
	c := b.command("").start("batch", in, "-o", filepath.Join(t.TempDir(), "out.jsonl"), "-window", "1")
	c.err.await(t, "is full")
	require.NoError(t, os.WriteFile(in, []byte(strings.ReplaceAll(rows(10), "user", "USER")), 0o600))
	b.serve("default", always(job.Succeeded))
	require.Equal(t, exitUsage, c.wait())
	require.Contains(t, c.err.String(), "has changed since it was checked: leave the file alone while the batch runs\n")
}

func TestResultsOfAnotherFileAreNotTakenForThoseOfThisOne(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.serve("default", always(job.Succeeded))
	out := filepath.Join(t.TempDir(), "out.jsonl")
	code, _, stderr := b.submit("batch", b.file("in.jsonl", rows(3)), "-o", out, "-id", "b")
	require.Equal(t, exitOK, code, stderr)
	other := strings.ReplaceAll(rows(3), "row-2", "line-2")
	code, _, stderr = b.submit("batch", b.file("in.jsonl", other), "-o", out, "-id", "b")
	require.Equal(t, exitUsage, code)
	require.Contains(t, stderr, "submit: job b.000002 is not line 2 of this file: its custom_id is another. Choose another -id, or -fresh\n")
	requireRows(t, read(t, out), 3) // as it was
}

func TestALineThatWasRedrivenIsAwaited(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	in, out := b.file("in.jsonl", rows(2)), filepath.Join(t.TempDir(), "out.jsonl")
	first := b.command("").start("batch", in, "-o", out, "-id", "b")
	b.finish(b.take("default"), job.Succeeded)
	b.finish(b.take("default"), job.Failed)
	require.Equal(t, exitFailed, first.wait())
	code, stdout, stderr := b.submit("dead", "redrive", "b.*")
	require.Equal(t, exitOK, code, stderr)

	second := b.command("").start("batch", in, "-o", out, "-id", "b")
	second.err.await(t, "2 of 2 lines were done before")
	tk := b.take("default")
	require.Equal(t, strings.TrimSpace(stdout), tk.id)
	b.finish(tk, job.Succeeded)
	require.Equal(t, exitOK, second.wait(), second.err)
	requireRows(t, read(t, out), 2)
}

func TestWhereResultsGo(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.serve("default", always(job.Succeeded))
	in, dir := b.file("in.jsonl", rows(3)), t.TempDir()

	existing := filepath.Join(dir, "existing.jsonl")
	require.NoError(t, os.WriteFile(existing, []byte("old"), 0o640))
	link := filepath.Join(dir, "link.jsonl")
	require.NoError(t, os.Symlink(existing, link))
	code, _, stderr := b.submit("batch", in, "-o", link)
	require.Equal(t, exitOK, code, stderr)
	requireRows(t, read(t, existing), 3)
	info, err := os.Lstat(link)
	require.NoError(t, err)
	require.Equal(t, os.ModeSymlink, info.Mode().Type())
	info, err = os.Stat(existing)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o640), info.Mode())

	pipe := filepath.Join(dir, "pipe")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	c := b.command("").start("batch", in, "-o", pipe)
	requireRows(t, read(t, pipe), 3)
	require.Equal(t, exitOK, c.wait())

	for target, want := range map[string]string{
		dir:                                    "the results cannot be written: " + dir + " is a directory",
		filepath.Join(dir, "no", "such.jsonl"): "the results cannot be written: open ",
		in:                                     "the results would overwrite the jobs: choose another -o",
	} {
		code, _, stderr := b.submit("batch", in, "-o", target)
		require.Equal(t, exitUsage, code)
		require.Contains(t, stderr, "submit: "+want)
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 3) // no partial and no temporary file
	require.Equal(t, rows(3), read(t, in))
}
