package main

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxShown bounds a text that is shown, in characters. Names have 255 at most, records may have many more.
const maxShown = 2000

// clean makes a text from outside fit for a terminal: what is not printed but obeyed, or changes how what stands beside it
// is read, is written as Go does in strings, \x1b or \u202e, and so are line breaks and tabs.
func clean(text string) string {
	text = bounded(text, maxShown)
	isPlain := func(r rune) bool { return r != utf8.RuneError && strconv.IsPrint(r) }
	if strings.IndexFunc(text, func(r rune) bool { return !isPlain(r) }) < 0 {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, text[i])
		case isPlain(r), r == utf8.RuneError:
			b.WriteRune(r)
		default:
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		i += size
	}
	return b.String()
}

// cleanLines leaves line breaks as they are.
func cleanLines(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = clean(line)
	}
	return strings.Join(lines, "\n")
}

// bounded cuts a text off that is too long, after so many characters.
func bounded(text string, most int) string {
	if len(text) <= most {
		return text
	}
	count := 0
	for i := range text {
		if count++; count > most {
			return text[:i] + "..."
		}
	}
	return text
}

// cleanJSON makes JSON fit for a terminal, too, and leaves its meaning as it is: what is not ASCII can only stand in its
// strings, and there it can be written as \u202e.
func cleanJSON(content []byte) []byte {
	isPlain := func(r rune) bool {
		return r == '\n' || r == '\t' || r == '\r' || r != utf8.RuneError && strconv.IsPrint(r)
	}
	if bytes.IndexFunc(content, func(r rune) bool { return !isPlain(r) }) < 0 {
		return content
	}
	var b bytes.Buffer
	for len(content) > 0 {
		r, size := utf8.DecodeRune(content)
		switch {
		case isPlain(r):
			b.Write(content[:size])
		case r > 0xffff:
			r -= 0x10000 // a pair of UTF-16 (RFC 8259, section 7)
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		content = content[size:]
	}
	return b.Bytes()
}
