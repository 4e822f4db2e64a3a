// The program kandinsky. All of it is in the library, which lies beside it.

#include "program/program.h"

int main(int argc, char **argv) { return KandinskyProgram(argc, argv); }
