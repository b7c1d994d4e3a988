// Package all registers every architecture.
package all

import (
	_ "github.com/apr-engine/apr/model/gemma3"
	_ "github.com/apr-engine/apr/model/llama"
	_ "github.com/apr-engine/apr/model/qwen2"
	_ "github.com/apr-engine/apr/model/qwen3"
)
