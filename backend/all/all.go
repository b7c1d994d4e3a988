// Package all registers every backend. The build tags nocuda and nowgpu leave the
// GPU backends out, and with them the library that makes the binary dynamic.
package all

import (
	_ "github.com/apr-engine/apr/backend/cpu"
	_ "github.com/apr-engine/apr/backend/oracle"
)
