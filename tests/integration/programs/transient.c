/* Two components on a periodic grid, u_t = nu lap u (per cell) and v_t = -nu v, by Runge-Kutta.
   An ordinary PETSc program: what is compiled here is what somebody might already have. */
#include <petscdmda.h>
#include <petscts.h>

typedef struct {
  PetscScalar u, v;
} Node;

static PetscErrorCode Rates(TS ts, PetscReal t, Vec X, Vec G, void *context)
{
  const PetscReal nu = *(PetscReal *)context;
  DM              da;
  DMDALocalInfo   box;
  Vec             local;
  Node          **x, **g;

  PetscFunctionBeginUser;
  PetscCall(TSGetDM(ts, &da));
  PetscCall(DMDAGetLocalInfo(da, &box));
  PetscCall(DMGetLocalVector(da, &local));
  PetscCall(DMGlobalToLocal(da, X, INSERT_VALUES, local));
  PetscCall(DMDAVecGetArrayRead(da, local, &x));
  PetscCall(DMDAVecGetArray(da, G, &g));
  for (PetscInt j = box.ys; j < box.ys + box.ym; j++) {
    for (PetscInt i = box.xs; i < box.xs + box.xm; i++) {
      g[j][i].u = nu * (x[j][i - 1].u + x[j][i + 1].u + x[j - 1][i].u + x[j + 1][i].u - 4 * x[j][i].u);
      g[j][i].v = -nu * x[j][i].v;
    }
  }
  PetscCall(DMDAVecRestoreArrayRead(da, local, &x));
  PetscCall(DMDAVecRestoreArray(da, G, &g));
  PetscCall(DMRestoreLocalVector(da, &local));
  PetscFunctionReturn(PETSC_SUCCESS);
}

int main(int argc, char **argv)
{
  TS            ts;
  DM            da;
  Vec           X;
  DMDALocalInfo box;
  Node        **x;
  PetscReal     nu = 0.1;

  PetscFunctionBeginUser;
  PetscCall(PetscInitialize(&argc, &argv, NULL, NULL));
  PetscCall(PetscOptionsGetReal(NULL, NULL, "-nu", &nu, NULL));
  PetscCall(DMDACreate2d(PETSC_COMM_WORLD, DM_BOUNDARY_PERIODIC, DM_BOUNDARY_PERIODIC, DMDA_STENCIL_STAR, 20, 13, PETSC_DECIDE, PETSC_DECIDE, 2, 1, NULL, NULL, &da));
  PetscCall(DMSetFromOptions(da));
  PetscCall(DMSetUp(da));
  PetscCall(DMCreateGlobalVector(da, &X));
  PetscCall(DMDAGetLocalInfo(da, &box));
  PetscCall(DMDAVecGetArray(da, X, &x));
  for (PetscInt j = box.ys; j < box.ys + box.ym; j++) {
    for (PetscInt i = box.xs; i < box.xs + box.xm; i++) {
      x[j][i].u = PetscSinReal(2 * PETSC_PI * i / box.mx) * PetscCosReal(2 * PETSC_PI * j / box.my);
      x[j][i].v = i + 100 * j;
    }
  }
  PetscCall(DMDAVecRestoreArray(da, X, &x));
  PetscCall(TSCreate(PETSC_COMM_WORLD, &ts));
  PetscCall(TSSetDM(ts, da));
  PetscCall(TSSetRHSFunction(ts, NULL, Rates, &nu));
  PetscCall(TSSetType(ts, TSRK));
  PetscCall(TSSetTimeStep(ts, 0.05));
  PetscCall(TSSetMaxTime(ts, 0.5));
  PetscCall(TSSetExactFinalTime(ts, TS_EXACTFINALTIME_MATCHSTEP));
  PetscCall(TSSetFromOptions(ts));
  PetscCall(TSSolve(ts, X));
  PetscCall(TSDestroy(&ts));
  PetscCall(VecDestroy(&X));
  PetscCall(DMDestroy(&da));
  PetscCall(PetscFinalize());
  return 0;
}
