//go:build !amd64

package alg

import "crypto/aes"

var newAESForCBC = aes.NewCipher
