/* Bratu's problem, -lap u = lambda exp(u) on the unit square with u = 0 around it, by Newton.
   There is no solution for lambda above 6.81. */
#include <petscdmda.h>
#include <petscsnes.h>

static PetscErrorCode Residual(DMDALocalInfo *box, PetscScalar **u, PetscScalar **f, void *context)
{
  const PetscReal lambda = *(PetscReal *)context;
  const PetscReal hx = 1.0 / (box->mx - 1), hy = 1.0 / (box->my - 1);

  PetscFunctionBeginUser;
  for (PetscInt j = box->ys; j < box->ys + box->ym; j++) {
    for (PetscInt i = box->xs; i < box->xs + box->xm; i++) {
      if (i == 0 || j == 0 || i == box->mx - 1 || j == box->my - 1) {
        f[j][i] = u[j][i];
      } else {
        f[j][i] = (2 * u[j][i] - u[j][i - 1] - u[j][i + 1]) / (hx * hx) + (2 * u[j][i] - u[j - 1][i] - u[j + 1][i]) / (hy * hy) - lambda * PetscExpScalar(u[j][i]);
      }
    }
  }
  PetscFunctionReturn(PETSC_SUCCESS);
}

int main(int argc, char **argv)
{
  SNES      snes;
  DM        da;
  Vec       u;
  PetscReal lambda = 1.0;

  PetscFunctionBeginUser;
  PetscCall(PetscInitialize(&argc, &argv, NULL, NULL));
  PetscCall(PetscOptionsGetReal(NULL, NULL, "-lambda", &lambda, NULL));
  PetscCall(DMDACreate2d(PETSC_COMM_WORLD, DM_BOUNDARY_NONE, DM_BOUNDARY_NONE, DMDA_STENCIL_STAR, 11, 8, PETSC_DECIDE, PETSC_DECIDE, 1, 1, NULL, NULL, &da));
  PetscCall(DMSetFromOptions(da));
  PetscCall(DMSetUp(da));
  PetscCall(SNESCreate(PETSC_COMM_WORLD, &snes));
  PetscCall(SNESSetOptionsPrefix(snes, "bratu_"));
  PetscCall(SNESSetDM(snes, da));
  PetscCall(DMDASNESSetFunctionLocal(da, INSERT_VALUES, (DMDASNESFunctionFn *)Residual, &lambda));
  PetscCall(SNESSetFromOptions(snes));
  PetscCall(DMCreateGlobalVector(da, &u));
  PetscCall(SNESSolve(snes, NULL, u));
  PetscCall(VecDestroy(&u));
  PetscCall(SNESDestroy(&snes));
  PetscCall(DMDestroy(&da));
  PetscCall(PetscFinalize());
  return 0;
}
