package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/synadia-io/orbit.go/natscontext"
)

// NATS says how to reach NATS. The zero value connects to [nats.DefaultURL]
// without credentials. It is safe for concurrent use.
type NATS struct {
	spec natsSpec
	// hint is what to do when nobody listens.
	hint string
}

// readNATS reads NATS_* and checks that the files exist. The hint is what to do
// when nobody listens.
func readNATS(r *reader, hint string) (NATS, []field) {
	n := NATS{hint: hint}
	list := r.read("NATS", "the connection to NATS", &n.spec)
	for _, file := range []*textSetting{&n.spec.Creds, &n.spec.Nkey, &n.spec.CA, &n.spec.Cert, &n.spec.Key} {
		if file.value == "" {
			continue
		}
		file.value = expandHome(file.value)
		if _, err := readFile(file.value, maxCredentials); err != nil {
			r.report.problem(file.name, "name a readable file", "%s %s", quoted(file.value), err)
		}
	}
	s := &n.spec
	if (s.Cert.value == "") != (s.Key.value == "") {
		lone, other := &s.Cert, &s.Key
		if s.Cert.value == "" {
			lone, other = other, lone
		}
		r.report.problem(other.name, "set both or none", "is not set, but %s is", lone.name)
	}
	if s.Password.value != "" && s.User.value == "" {
		r.report.problem(s.User.name, "set both, or NATS_TOKEN alone", "is not set, but %s is", s.Password.name)
	}
	if s.Context.value != "" && s.Context.err == nil {
		if err := n.checkContext(); err != nil {
			r.report.problem(s.Context.name, "`nats context ls` lists the contexts there are", "%s", err)
		}
	}
	return n, list
}

// expandHome replaces a leading ~ as the nats command does: a .env file has no
// shell that would.
func expandHome(file string) string {
	rest, found := strings.CutPrefix(file, "~/")
	home, err := os.UserHomeDir()
	if !found || err != nil {
		return file
	}
	return filepath.Join(home, rest)
}

// maxCredentials is the largest file of credentials or certificates, in bytes. A
// bundle of all public authorities has a quarter of it.
const maxCredentials = 1 << 20

// Configured reports whether the environment says where NATS is.
func (n NATS) Configured() bool { return n.spec.URL.text != "" || n.spec.Context.text != "" }

// Servers says where NATS is, without users and passwords.
func (n NATS) Servers() string {
	switch {
	case n.spec.URL.text != "":
		return n.spec.URL.shown()
	case n.spec.Context.text != "":
		return "the servers of the context " + n.spec.Context.text
	}
	return nats.DefaultURL
}

// Format implements [fmt.Formatter]: it is Servers, for every verb, so that no
// way of printing shows a secret.
func (n NATS) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, n.Servers()) }

// Connect connects to NATS with opts on top of what the environment says. It
// blocks until the first server answered or none did; unless opts say otherwise
// it tries each server once. Its error is a *[ConnectError].
func (n NATS) Connect(opts ...nats.Option) (*nats.Conn, error) {
	all := append(n.options(), opts...)
	var conn *nats.Conn
	var err error
	if name := n.spec.Context.value; name != "" {
		conn, _, err = natscontext.Connect(name, all...)
	} else {
		conn, err = nats.Connect(nats.DefaultURL, all...)
	}
	if err != nil {
		return nil, &ConnectError{text: n.explain(err), err: err}
	}
	return conn, nil
}

// options are what NATS_* say, but for the context.
func (n NATS) options() []nats.Option {
	s := &n.spec
	var opts []nats.Option
	if len(s.URL.value) > 0 {
		servers := make([]string, len(s.URL.value))
		for i, u := range s.URL.value {
			servers[i] = u.String()
		}
		opts = append(opts, func(o *nats.Options) error {
			o.Servers = slices.Clone(servers)
			return nil
		})
	}
	if s.Creds.value != "" {
		opts = append(opts, nats.UserCredentials(s.Creds.value))
	}
	switch {
	case s.User.value == "":
	case s.Password.value == "":
		opts = append(opts, nats.Token(string(s.User.value)))
	default:
		opts = append(opts, nats.UserInfo(string(s.User.value), string(s.Password.value)))
	}
	if s.Token.value != "" {
		opts = append(opts, nats.Token(string(s.Token.value)))
	}
	if file := s.Nkey.value; file != "" {
		opts = append(opts, func(o *nats.Options) error {
			nkey, err := nats.NkeyOptionFromSeed(file)
			if err != nil {
				return fmt.Errorf("NATS_NKEY: %w", err)
			}
			return nkey(o)
		})
	}
	if s.CA.value != "" {
		opts = append(opts, nats.RootCAs(s.CA.value))
	}
	if s.Cert.value != "" && s.Key.value != "" {
		opts = append(opts, nats.ClientCert(s.Cert.value, s.Key.value))
	}
	return opts
}

// errLoaded stops natscontext before it connects.
var errLoaded = errors.New("the context is loaded")

// checkContext returns an error unless the context can be loaded.
func (n NATS) checkContext() error {
	_, _, err := natscontext.Connect(n.spec.Context.value, func(*nats.Options) error { return errLoaded })
	switch {
	case errors.Is(err, errLoaded):
		return nil
	case errors.Is(err, os.ErrNotExist):
		return errors.New("is a file that does not exist")
	}
	return fmt.Errorf("cannot be used: %s", n.masked(err))
}

// masked is the text of an error without what NATS_* keeps secret.
func (n NATS) masked(err error) string {
	text := err.Error()
	secrets := []string{string(n.spec.Password.value), string(n.spec.Token.value)}
	if n.spec.Password.value == "" {
		secrets = append(secrets, string(n.spec.User.value)) // a token
	}
	for _, u := range n.spec.URL.value {
		if u.User != nil {
			password, _ := u.User.Password()
			secrets = append(secrets, u.User.String(), password, u.User.Username())
		}
	}
	for _, secret := range secrets {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "[set]")
		}
	}
	return strings.Join(strings.Fields(text), " ") // on one line
}
