//go:build !nocuda

package all

import _ "github.com/apr-engine/apr/backend/cuda"
