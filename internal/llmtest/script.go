package llmtest

// Script decides what a call gets. It is called from many goroutines at once,
// without a lock held; it may block, but then does not see the client go: use
// [Reply.Until] for that. The body of the call must not be changed.
type Script func(Call) Reply

// Always gives every call the same reply.
func Always(r Reply) Script { return func(Call) Reply { return r } }

// Echo gives every call a correct answer that echoes its prompt.
func Echo() Script { return Always(Reply{}) }

// Steps gives the provider's nth call the nth reply, and every further call the
// last one. Without replies it is [Echo].
func Steps(replies ...Reply) Script {
	return func(c Call) Reply { return nth(replies, c.N) }
}

// ModelSteps is [Steps] with a count of its own for each model.
func ModelSteps(replies ...Reply) Script {
	return func(c Call) Reply { return nth(replies, c.NModel) }
}

// PerModel asks the script of the call's model. A model that has none gets the
// 404 of the OpenAI API.
func PerModel(scripts map[string]Script) Script {
	return func(c Call) Reply {
		if s, ok := scripts[c.Model]; ok {
			return s(c)
		}
		return Reply{
			Status: 404, Code: "model_not_found", Type: "invalid_request_error",
			Text: "The model `" + c.Model + "` does not exist or you do not have access to it.",
		}
	}
}

func nth(replies []Reply, n int) Reply {
	if len(replies) == 0 {
		return Reply{}
	}
	return replies[min(n, len(replies))-1]
}
