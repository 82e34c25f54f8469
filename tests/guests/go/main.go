// A command of WASI 0.1 in Go: prints a greeting, the variable COLOUR and its arguments. `exit CODE` ends with that code, and
// `cat PATH` prints a file.
package main

import (
	"fmt"
	"os"
	"strconv"
)

func main() {
	arguments := os.Args[1:]
	if len(arguments) == 2 {
		switch arguments[0] {
		case "exit":
			code, err := strconv.Atoi(arguments[1])
			check(err)
			os.Exit(code)
		case "cat":
			content, err := os.ReadFile(arguments[1])
			check(err)
			os.Stdout.Write(content)
			return
		}
	}
	fmt.Printf("hello from go\n%s\n", os.Getenv("COLOUR"))
	for _, argument := range arguments {
		fmt.Println(argument)
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
