package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// serverReady bounds the start of the server, on a busy machine.
const serverReady = time.Minute

// maxPayload is the most that a message to the server may hold, for prompts of
// 1 MB; the default is less than that. What is bigger goes by object store.
const maxPayload = 8 << 20

// runServer runs a NATS server with JetStream and prints its URL.
func runServer(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("child-server", flag.ContinueOnError)
	dir := flags.String("dir", "", "data `directory`")
	always := flags.Bool("sync", false, "sync every write to disk")
	if err := flags.Parse(args); err != nil {
		return err
	}
	srv, err := server.NewServer(&server.Options{
		ServerName: "bench", Host: "127.0.0.1", Port: server.RANDOM_PORT,
		MaxPayload: maxPayload, JetStream: true, StoreDir: *dir, SyncAlways: *always, NoSigs: true, NoLog: true,
	})
	if err != nil {
		return err
	}
	srv.Start()
	defer func() {
		srv.Shutdown()
		srv.WaitForShutdown()
	}()
	if !srv.ReadyForConnections(serverReady) {
		return errors.New("not ready in time")
	}
	if _, err := fmt.Fprintln(stdout, srv.ClientURL()); err != nil {
		return err
	}
	<-untilOrphan(ctx).Done()
	return nil
}

// untilOrphan returns a context that also ends when the parent process is gone:
// a child's standard input is a pipe that nobody writes to.
func untilOrphan(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	go func() { // ends with the process
		_, _ = io.Copy(io.Discard, os.Stdin) // an error is an end, too
		cancel()
	}()
	return ctx
}
