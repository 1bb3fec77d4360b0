package job_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"understudy/internal/job"
	"understudy/internal/leaktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(leaktest.Patient(m)) }

func subjects(tb testing.TB) job.Subjects {
	tb.Helper()
	s, err := job.NewSubjects(job.DefaultPrefix)
	require.NoError(tb, err)
	return s
}

func decoder(tb testing.TB) *job.Decoder {
	tb.Helper()
	rule, err := job.ParseReplyRule(job.DefaultReplyAllow)
	require.NoError(tb, err)
	return job.NewDecoder(subjects(tb), rule)
}

// requireBytes requires got to be want to the byte: JSON that merely means the
// same is not enough.
func requireBytes(tb testing.TB, want string, got []byte) {
	tb.Helper()
	require.Equal(tb, want, string(got))
}

// requireFieldError requires err to be a *job.FieldError with exactly this text.
func requireFieldError(tb testing.TB, err error, want string) {
	tb.Helper()
	require.EqualError(tb, err, want)
	_, ok := errors.AsType[*job.FieldError](err)
	require.True(tb, ok, "%T is no *job.FieldError", err)
}
