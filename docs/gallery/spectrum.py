"""How the eigenvalues of the Hessian are distributed."""

from trained import model, train

from losslandscape import Hessian
from losslandscape.plotting import plot_spectrum

spectrum = Hessian(model, *train).spectrum(number_of_probes=3, steps=30, seed=0)
plot_spectrum(spectrum).get_figure().savefig("spectrum.png", dpi=200)
