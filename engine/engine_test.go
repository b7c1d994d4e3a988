package engine_test

import (
	"context"
	"testing"

	_ "github.com/apr-engine/apr/backend/all"
	"github.com/apr-engine/apr/chat"
	"github.com/apr-engine/apr/engine"
	"github.com/apr-engine/apr/internal/golden"
	_ "github.com/apr-engine/apr/model/all"
)

const big, small = "tiny-coder-28m-q4_k_m.gguf", "tiny-coder-4m-q4_k_m.gguf"

func open(t testing.TB, file string, o engine.Options) *engine.Engine {
	t.Helper()
	m, err := engine.LoadModel(golden.Path(t, "models", file))
	if err != nil {
		t.Fatal(err)
	}
	e, err := engine.Open(m, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close(); m.Close() })
	return e
}

func ask(t testing.TB, e *engine.Engine, question string, r engine.Request) engine.Result {
	t.Helper()
	ids, err := e.Model.ChatPrompt([]chat.Message{{Role: "user", Content: question}})
	if err != nil {
		t.Fatal(err)
	}
	s, err := e.NewSession(512)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r.Prompt = ids
	res, err := s.Generate(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// The answers are those of transformers for the F16 weights (models/README.md).
func TestAnswers(t *testing.T) {
	for _, tt := range []struct{ name, file, question, want string }{
		{"sum", big, "What is 2+2?", "2 + 2 equals 4."},
		{"sum, small", small, "What is 2+2?", "2 + 2 equals 4."},
		{"count", big, "Count from 1 to 10.", "1, 2, 3, 4, 5, 6, 7, 8, 9, 10"},
		{"fact", big, "What is a goroutine?", "A goroutine is a lightweight thread managed by the Go runtime."},
		{"code", big, "Write a Go function that adds two numbers.", "```go\nfunc Add(a, b int) int {\n\treturn a + b\n}\n```"},
		{"compare", small, "Which is larger, 17 or 71?", "71 is larger than 17."},
		{"spell", big, "Reverse the word stone.", "enots"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, backend := range []string{"auto", "cpu-exact"} {
				res := ask(t, open(t, tt.file, engine.Options{Backend: backend}), tt.question, engine.Request{MaxTokens: 64})
				if res.Text != tt.want || res.FinishReason != engine.FinishStop {
					t.Errorf("%s: %q (%s), want %q (stop)", backend, res.Text, res.FinishReason, tt.want)
				}
			}
		})
	}
}
