package examples_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// compose is the part of docker-compose.yml that promises something.
type compose struct {
	Services map[string]service
	Volumes  map[string]any
}

type service struct {
	Image       string
	Build       string
	Profiles    []string
	Command     []string
	Entrypoint  []string
	Volumes     []string
	Ports       []string
	Environment map[string]string
	EnvFile     []struct {
		Path     string
		Required bool
	} `yaml:"env_file"`
	Healthcheck struct {
		Test []string
	}
	StopGracePeriod string                       `yaml:"stop_grace_period"`
	DependsOn       map[string]map[string]string `yaml:"depends_on"`
}

func readCompose(t *testing.T) compose {
	t.Helper()
	raw, err := os.ReadFile("../docker-compose.yml")
	require.NoError(t, err)
	var c compose
	require.NoError(t, yaml.Unmarshal(raw, &c))
	require.Len(t, c.Services, 4)
	return c
}

func TestTheServerOfComposeSyncsEveryWriteToAVolume(t *testing.T) {
	t.Parallel()
	opts, err := server.ProcessConfigFile("../deploy/nats.conf")
	require.NoError(t, err)
	require.True(t, opts.JetStream)
	require.True(t, opts.SyncAlways)
	require.Equal(t, "/data", opts.StoreDir)
	require.Equal(t, 4222, opts.Port)
	require.Equal(t, 8222, opts.HTTPPort)
	require.Equal(t, int32(8<<20), opts.MaxPayload)

	c := readCompose(t)
	nats := c.Services["nats"]
	require.Regexp(t, `^nats:\d+\.\d+\.\d+-alpine$`, nats.Image, "pinned, and with a wget")
	require.Empty(t, nats.Profiles)
	require.Equal(t, []string{"nats-server", "-c", "/etc/nats/nats.conf"}, nats.Command)
	require.Contains(t, nats.Volumes, "./deploy/nats.conf:/etc/nats/nats.conf:ro")
	require.Contains(t, nats.Volumes, "nats-data:/data")
	require.Contains(t, c.Volumes, "nats-data")
}

func TestEveryServiceOfComposeIsCheckedAndOnLocalhostOnly(t *testing.T) {
	t.Parallel()
	for name, s := range readCompose(t).Services {
		require.NotEmpty(t, s.Ports, name)
		require.Len(t, s.Healthcheck.Test, 4, name)
		for _, p := range s.Ports {
			require.True(t, strings.HasPrefix(p, "127.0.0.1:"), "%s: %s", name, p)
			// The check asks one of the ports the service publishes.
			_, inside, _ := strings.Cut(p[strings.LastIndex(p, "}"):], ":")
			if strings.Contains(s.Healthcheck.Test[3], ":"+inside+"/") {
				continue
			}
			require.Greater(t, len(s.Ports), 1, "%s: nothing listens where the check asks", name)
		}
		for _, v := range s.Volumes {
			if path, _, _ := strings.Cut(v, ":"); strings.HasPrefix(path, ".") {
				require.FileExists(t, filepath.Join("..", path))
			}
		}
	}
}

func TestTheProfilesOfComposeRunAWorkerEach(t *testing.T) {
	t.Parallel()
	c := readCompose(t)
	profiles := map[string][]string{}
	for name, s := range c.Services {
		for _, p := range s.Profiles {
			profiles[p] = append(profiles[p], name)
		}
		slices.Sort(profiles["demo"])
	}
	require.Equal(t, map[string][]string{"demo": {"fakellm", "worker-demo"}, "live": {"worker"}}, profiles)
	for _, name := range []string{"worker", "worker-demo"} {
		w := c.Services[name]
		require.Equal(t, ".", w.Build)
		require.Equal(t, "nats://nats:4222", w.Environment["NATS_URL"])
		require.Equal(t, "0.0.0.0:8080", w.Environment["WORKER_HTTP_ADDR"])
		require.Equal(t, []string{"CMD", "wget", "-qO-", "http://127.0.0.1:8080/readyz"}, w.Healthcheck.Test)
		require.Equal(t, "service_healthy", w.DependsOn["nats"]["condition"])
		grace, err := time.ParseDuration(w.StopGracePeriod)
		require.NoError(t, err)
		require.Greater(t, grace, 35*time.Second, "25 s for calls that run, 10 s to settle")
	}
	live := c.Services["worker"]
	require.Len(t, live.EnvFile, 1)
	require.Equal(t, ".env", live.EnvFile[0].Path)
	require.False(t, live.EnvFile[0].Required)
	demo := c.Services["worker-demo"]
	require.Equal(t, "service_healthy", demo.DependsOn["fakellm"]["condition"])
	require.Equal(t, "http://fakellm:9090/openrouter/v1", demo.Environment["OPENROUTER_BASE_URL"])
	require.Equal(t, "http://fakellm:9090/vllm/v1", demo.Environment["VLLM_BASE_URL"])
	require.Empty(t, demo.EnvFile, "the demo takes no keys")
}

func TestTheImageHasNoRootAndNoSecrets(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("../Dockerfile")
	require.NoError(t, err)
	file := string(raw)
	require.Contains(t, file, "\nUSER 65532:65532\n")
	require.Contains(t, file, "-trimpath")
	require.Contains(t, file, "CGO_ENABLED=0")
	for line := range strings.Lines(file) {
		if image, ok := strings.CutPrefix(line, "FROM "); ok {
			require.Regexp(t, `:\d+\.\d+`, image, "pinned")
		}
	}
	mod, err := os.ReadFile("../go.mod")
	require.NoError(t, err)
	for line := range strings.Lines(string(mod)) {
		if version, ok := strings.CutPrefix(line, "go "); ok {
			require.Contains(t, file, "golang:"+strings.TrimSpace(version)+"-alpine", "the Go of go.mod")
		}
	}
	ignore, err := os.ReadFile("../.dockerignore")
	require.NoError(t, err)
	require.Contains(t, string(ignore), "\n*\n!go.mod\n", "nothing by default: no .env in an image")
}
