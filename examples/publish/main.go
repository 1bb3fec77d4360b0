// Command publish is the smallest publisher in Go: one job by JetStream, one by
// request. It knows nothing of this repository but the subjects and the JSON.
//
//	go run ./examples/publish "Why is the sky blue?"
//
// NATS_URL says where the server is (default nats://127.0.0.1:4222).
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// patience is how long to wait for an answer. The job itself has no hurry: its
// result is stored, and can be fetched from llm.results.<queue>.<id> for a week.
const patience = time.Minute

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "publish:", err)
		os.Exit(1)
	}
}

func run() error {
	question := "Why is the sky blue?"
	if len(os.Args) > 1 {
		question = os.Args[1]
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	nc, err := nats.Connect(cmp.Or(os.Getenv("NATS_URL"), nats.DefaultURL))
	if err != nil {
		return err
	}
	defer nc.Close()
	for _, ask := range []func(context.Context, *nats.Conn, string) (string, error){publish, request} {
		answer, err := ask(ctx, nc, question)
		if err != nil {
			return err
		}
		fmt.Println(answer)
	}
	return nil
}

// chat is the body of a chat completion with one question.
type chat struct {
	Model    string    `json:"model,omitempty"`
	Messages []message `json:"messages"`
}

type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

func ask(question string) chat {
	return chat{Model: "auto", Messages: []message{{"user", question}}}
}

// publish stores a job under an id of our own, and waits for its result.
func publish(ctx context.Context, nc *nats.Conn, question string) (string, error) {
	id := "hello-" + rand.Text()
	job, err := json.Marshal(map[string]chat{"body": ask(question)})
	if err != nil {
		return "", err
	}

	// Subscribe before publishing: the result is announced once. The server reads
	// a connection in order, so the subscription is there when the job arrives.
	done, err := nc.SubscribeSync("llm.done.default." + id)
	if err != nil {
		return "", err
	}
	defer func() { _ = done.Unsubscribe() }() // ends with the connection anyway

	// The acknowledgement says that the job is stored; from here on it is safe.
	// Publishing the same id again is refused while the job is queued or running.
	js, err := jetstream.New(nc)
	if err != nil {
		return "", err
	}
	ack, err := js.Publish(ctx, "llm.jobs.default."+id, job)
	if err != nil {
		return "", err
	}
	fmt.Fprintf(os.Stderr, "stored as %s, sequence %d\n", id, ack.Sequence)

	msg, err := done.NextMsgWithContext(ctx)
	if err != nil {
		return "", err
	}
	return answerOf(msg.Data)
}

// request asks and gets the result as the reply. It is a stored job all the same.
func request(ctx context.Context, nc *nats.Conn, question string) (string, error) {
	body, err := json.Marshal(ask(question))
	if err != nil {
		return "", err
	}
	msg, err := nc.RequestWithContext(ctx, "llm.complete", body)
	if err != nil {
		return "", err
	}
	if text := msg.Header.Get("Nats-Service-Error"); text != "" {
		return "", errors.New(text)
	}
	return answerOf(msg.Data)
}

// answerOf returns the answer in a result, or the reason why there is none.
func answerOf(data []byte) (string, error) {
	var result struct {
		Status   string
		Error    *struct{ Code, Message string }
		Response *struct {
			Body struct {
				Choices []struct{ Message message }
			}
		}
	}
	if err := json.Unmarshal(data, &result); err != nil {
		return "", err
	}
	switch {
	case result.Error != nil:
		return "", fmt.Errorf("%s: %s: %s", result.Status, result.Error.Code, result.Error.Message)
	case result.Response == nil || len(result.Response.Body.Choices) == 0:
		return "", fmt.Errorf("%s without an answer", result.Status)
	}
	return result.Response.Body.Choices[0].Message.Content, nil
}
