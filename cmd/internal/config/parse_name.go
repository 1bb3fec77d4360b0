package config

import (
	"log/slog"
	"slices"
	"strings"

	"understudy/internal/fallback"
	"understudy/internal/job"
	"understudy/internal/worker"
)

// The settings with a closed or checked set of words.
type (
	levelSetting  = setting[slog.Level, level]
	formatSetting = setting[string, format]
	kindSetting   = setting[string, backendKind]
	limitSetting  = setting[string, onLimit]
	nameSetting   = setting[string, workerName]
	prefixSetting = setting[job.Subjects, subjectPrefix]
)

// The values of WORKER_LOG_FORMAT.
const (
	formatText = "text"
	formatJSON = "json"
)

func (level) parse(text string) (slog.Level, error) {
	switch strings.ToLower(text) {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn", "warning":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, flawed("use debug, info, warn or error", "%s is not a level", quoted(text))
}

func (format) parse(text string) (string, error) { return oneOf(text, formatText, formatJSON) }

func (backendKind) parse(text string) (string, error) {
	return oneOf(text, worker.KindOpenAI, worker.KindAzure, worker.KindRules)
}

func (onLimit) parse(text string) (string, error) {
	return oneOf(text, fallback.OnLimitWait, fallback.OnLimitFallback)
}

func oneOf(text string, words ...string) (string, error) {
	if word := strings.ToLower(text); slices.Contains(words, word) {
		return word, nil
	}
	return "", flawed("use "+either(words), "%s is not known", quoted(text))
}

// either is words as an enumeration; there is at least one.
func either(words []string) string {
	last := len(words) - 1
	if last == 0 {
		return words[0]
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// parse accepts the names that hosts have.
func (workerName) parse(text string) (string, error) {
	const most = 128
	const allowed = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"
	if len(text) > most || strings.Trim(text, allowed) != "" {
		return "", flawed("use at most 128 of A-Z a-z 0-9 . _ -", "%s is not a name", quoted(text))
	}
	return text, nil
}

func (subjectPrefix) parse(text string) (job.Subjects, error) {
	subjects, err := job.NewSubjects(text)
	if err != nil {
		return subjects, flawed("use at most 64 of A-Z a-z 0-9 _ -", "%s cannot start a subject", quoted(text))
	}
	return subjects, nil
}

// checkName returns what is wrong with the name of a backend or a route: it is
// part of subjects and of variables' names.
func checkName(name string) error {
	if err := job.CheckQueue(name); err != nil {
		return flawed("use at most 64 of A-Z a-z 0-9 _ -", "%s is not a name", quoted(name))
	}
	return nil
}

// envPrefix is what the names of the variables of a backend or route start
// with, up to the underscore.
func envPrefix(name string) string {
	return strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}
