module coracle.dev/tests/guests/go

go 1.26
