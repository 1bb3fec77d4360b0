package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"understudy/internal/leaktest"
)

// asMain as the first argument makes the test binary be fakellm itself.
const asMain = "be-fakellm"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == asMain {
		os.Args = append(os.Args[:1], os.Args[2:]...)
		main()
	}
	goleak.VerifyTestMain(leaktest.Patient(m))
}

const hello = `{"model":"m","messages":[{"role":"user","content":"a secret prompt"}]}`

// start runs fakellm inside the test and returns its URLs and a way to stop it
// that returns the exit code and what it said on stderr.
func start(t *testing.T, args ...string) (urls []string, stop func() (int, string)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	out, in := io.Pipe()
	var stderr bytes.Buffer
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, append([]string{"-addr", "127.0.0.1:0"}, args...), in, &stderr)
		in.Close()
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	rest, ok := strings.CutPrefix(strings.TrimSpace(line), "fakellm serves ")
	require.True(t, ok, line)
	return strings.Fields(rest), func() (int, string) {
		cancel()
		return <-code, stderr.String()
	}
}

func call(t *testing.T, method, url, body string, header ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	require.NoError(t, err)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	tr := &http.Transport{DisableKeepAlives: true}
	res, err := (&http.Client{Transport: tr}).Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, string(raw)
}

func TestProvidersAreServedUnderTheirNames(t *testing.T) {
	t.Parallel()
	script := filepath.Join(t.TempDir(), "script.json")
	require.NoError(t, os.WriteFile(script, []byte(`{"azure":[{"status":429,"retry_after":"1","text":"slow down"}]}`), 0o600))
	log := filepath.Join(t.TempDir(), "calls.jsonl")
	urls, stop := start(t, "-script", script, "-providers", "vllm", "-log", log, "-key", "k")
	require.Len(t, urls, 3)
	root := strings.TrimSuffix(urls[2], "/v1")
	require.Equal(t, []string{root + "/azure/v1", root + "/vllm/v1", root + "/v1"}, urls)

	key := []string{"Authorization", "Bearer k", "X-Job-Id", "job-1"}
	status, body := call(t, http.MethodPost, urls[1]+"/chat/completions", hello, key...)
	require.Equal(t, 200, status)
	require.Contains(t, body, "echo: a secret prompt")
	status, body = call(t, http.MethodPost, root+"/azure/openai/deployments/d/chat/completions", hello, key...)
	require.Equal(t, 429, status)
	require.Contains(t, body, "slow down")
	status, _ = call(t, http.MethodPost, urls[2]+"/embeddings", `{"model":"e","input":"x"}`, key...)
	require.Equal(t, 200, status)
	status, _ = call(t, http.MethodPost, urls[1]+"/chat/completions", hello)
	require.Equal(t, 401, status)
	status, _ = call(t, http.MethodPost, root+"/nobody/v1/chat/completions", hello, key...)
	require.Equal(t, 404, status)
	status, body = call(t, http.MethodGet, root+"/healthz", "")
	require.Equal(t, 200, status)
	require.Equal(t, "ok\n", body)
	status, body = call(t, http.MethodGet, root+"/stats", "")
	require.Equal(t, 200, status)
	require.Contains(t, body, `"azure":{"calls":1,`)

	code, said := stop()
	require.Equal(t, 0, code)
	require.Empty(t, said)
	raw, err := os.ReadFile(log)
	require.NoError(t, err)
	require.NotContains(t, string(raw), "secret prompt")
	var entries []entry
	for line := range strings.Lines(string(raw)) {
		var e entry
		require.NoError(t, json.Unmarshal([]byte(line), &e))
		entries = append(entries, e)
	}
	require.Len(t, entries, 5)
	sum := sha256.Sum256([]byte(hello))
	first := entries[0]
	require.Equal(t, entry{
		Time: first.Time, Provider: "vllm", N: 1, Endpoint: "/v1/chat/completions", Model: "m", Status: 200,
		BodySHA256: hex.EncodeToString(sum[:]), BodyBytes: len(hello), DurationMS: first.DurationMS, Mark: "job-1",
	}, first)
	require.Equal(t, []int{200, 429, 200, 401, 404}, []int{first.Status, entries[1].Status, entries[2].Status, entries[3].Status, entries[4].Status})
}

func TestARecordedAnswerIsGivenToEveryCall(t *testing.T) {
	t.Parallel()
	urls, stop := start(t, "-vector", "anthropic-529")
	status, body := call(t, http.MethodPost, urls[0]+"/chat/completions", hello)
	require.Equal(t, 529, status)
	require.Contains(t, body, "overloaded_error")
	code, _ := stop()
	require.Equal(t, 0, code)
}

func TestWhatCannotRunSaysWhyAndExits(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.json")
	require.NoError(t, os.WriteFile(bad, []byte(`{"a":[{"p":2}]}`), 0o600))
	name := filepath.Join(dir, "name.json")
	require.NoError(t, os.WriteFile(name, []byte(`{"a/b":[]}`), 0o600))
	for title, tc := range map[string]struct {
		args []string
		code int
		want string
	}{
		"unknown flag":     {[]string{"-nope"}, 2, "-nope"},
		"argument":         {[]string{"x"}, 2, `unexpected argument "x"`},
		"no script":        {[]string{"-script", filepath.Join(dir, "none")}, 2, "no such file"},
		"wrong script":     {[]string{"-script", bad}, 2, "bad.json: a, rule 1: p must be from 0 to 1"},
		"wrong name":       {[]string{"-script", name}, 2, `"a/b" is no name`},
		"unknown vector":   {[]string{"-vector", "x"}, 2, `"x"`},
		"log in no folder": {[]string{"-log", filepath.Join(dir, "none", "x")}, 2, "no such file"},
		"wrong address":    {[]string{"-addr", "127.0.0.1:99999"}, 1, "invalid port"},
		"help":             {[]string{"-h"}, 0, "-script"},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			var stdout, stderr bytes.Buffer
			require.Equal(t, tc.code, run(t.Context(), tc.args, &stdout, &stderr))
			require.Contains(t, stderr.String(), tc.want)
			require.Empty(t, stdout.String())
		})
	}
}

func TestTheRecordedAnswersCanBeListed(t *testing.T) {
	t.Parallel()
	var stdout, stderr bytes.Buffer
	require.Equal(t, 0, run(t.Context(), []string{"-vector", "list"}, &stdout, &stderr))
	require.Equal(t, 67, strings.Count(stdout.String(), "\n"))
	require.Contains(t, stdout.String(), "529 overloaded\n")
}

func TestSIGTERMEndsItCleanlyWithACallHanging(t *testing.T) {
	t.Parallel()
	script := filepath.Join(t.TempDir(), "script.json")
	require.NoError(t, os.WriteFile(script, []byte(`{"default":[{"fault":"silence"}]}`), 0o600))
	cmd := exec.CommandContext(t.Context(), os.Args[0], asMain, "-addr", "127.0.0.1:0", "-script", script)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	urls := strings.Fields(strings.TrimPrefix(line, "fakellm serves "))

	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, urls[len(urls)-1]+"/chat/completions", strings.NewReader(hello))
	require.NoError(t, err)
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	_, err = io.ReadAll(res.Body)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.NoError(t, cmd.Wait())
	require.Empty(t, stderr.String())
}
