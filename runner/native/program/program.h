// The program, which the library holds. It is not for other programs: its face may change.

#ifndef KANDINSKY_MINDIR_PROGRAM_H
#define KANDINSKY_MINDIR_PROGRAM_H

extern "C" __attribute__((visibility("default"))) int KandinskyProgram(int argc, char **argv);

#endif
