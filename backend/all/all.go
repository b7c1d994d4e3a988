// Package all registers every backend.
package all

import (
	_ "github.com/apr-engine/apr/backend/cpu"
	_ "github.com/apr-engine/apr/backend/oracle"
)
