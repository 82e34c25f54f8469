/* A command of WASI 0.1 in C, with nothing but its standard library: prints a greeting, the variable COLOUR and its arguments.
 * `exit CODE` ends with that code, and `cat PATH` prints a file. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int cat(const char *path) {
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        perror(path);
        return EXIT_FAILURE;
    }
    for (int c = getc(file); c != EOF; c = getc(file)) putchar(c);
    fclose(file);
    return EXIT_SUCCESS;
}

int main(int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "exit") == 0) return atoi(argv[2]);
    if (argc == 3 && strcmp(argv[1], "cat") == 0) return cat(argv[2]);
    const char *colour = getenv("COLOUR");
    printf("hello from c\n%s\n", colour == NULL ? "" : colour);
    for (int i = 1; i < argc; i++) puts(argv[i]);
    return EXIT_SUCCESS;
}
