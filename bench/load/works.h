/* The works of lwload: each takes a fleet that is not yet open and gives the program's exit status. */
#ifndef LW_WORKS_H
#define LW_WORKS_H

struct fleet;

int work_idle(struct fleet *f);
int work_return(struct fleet *f);
int work_connect(struct fleet *f);
int work_relay(struct fleet *f);
int work_fanout(struct fleet *f);
int work_push(struct fleet *f);
int work_post(struct fleet *f);

#endif
