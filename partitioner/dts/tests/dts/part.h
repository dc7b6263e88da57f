#ifndef PART_H
#define PART_H
#define PART_VALUE 5
#endif
