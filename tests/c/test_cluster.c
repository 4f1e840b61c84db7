#include "check.h"
#include "random.h"
#include "pymtp.h"
#include <stdlib.h>
#include <time.h>
static double now(void){struct timespec t;clock_gettime(CLOCK_MONOTONIC,&t);return (double)t.tv_sec+1e-9*(double)t.tv_nsec;}
int main(int argc,char**argv){
  int64_t V=atoll(argv[1]); int D=atoi(argv[2]),C=atoi(argv[3]); int it=atoi(argv[4]); int mix=atoi(argv[5]);
  pymtp_error err; rng r={1};
  pymtp_clustering*c=pymtp_clustering_new(V,D,C,0,&err);
  float*base=malloc(sizeof(float)*(size_t)mix*(size_t)D); rng_fill(&r,base,(size_t)mix*(size_t)D,1);
  float*x=malloc(sizeof(float)*(size_t)D*4096);
  double t=now();
  for(int64_t v=0;v<V;v+=4096){int64_t n=V-v<4096?V-v:4096; for(int64_t i=0;i<n;i++){const float*b=base+(size_t)(rng_next(&r)%(uint64_t)mix)*(size_t)D; for(int k=0;k<D;k++) x[i*D+k]=b[k]+1.5f*rng_uniform(&r);} 
    CHECK(pymtp_clustering_add(c,x,n,&err)==0,"%s",err.text);}
  printf("add %.2f\n",now()-t);
  for(int i=0;i<it;i++){double o;t=now();CHECK(pymtp_clustering_improve(c,&o,&err)==0,"%s",err.text);printf("%d: %.5f  %.2f s\n",i,o,now()-t);}
  return check_done();
}
